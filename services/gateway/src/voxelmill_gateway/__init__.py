"""Voxelmill's gateway: the HTTP door."""
