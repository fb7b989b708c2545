"""Voxelmill's ingest service: objects in, validated instances and complete series out."""
