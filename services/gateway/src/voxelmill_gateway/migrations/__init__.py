"""How the gateway's tables came to be."""
