"""Keeping objects: a local folder, or S3."""
