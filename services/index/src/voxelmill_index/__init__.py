"""Voxelmill's index service: every event into the catalog, and the receipt of every job."""
