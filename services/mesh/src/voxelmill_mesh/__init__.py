"""Voxelmill's mesh service: a label map in, closed surfaces out."""
