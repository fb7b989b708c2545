"""Files on their way into the inbox: uploads of many files, whole or in parts, that end with evidence that all came."""
