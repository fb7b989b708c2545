"""How a bucket tells ingest of new objects: one module for each source, one normaliser, one announcer."""
