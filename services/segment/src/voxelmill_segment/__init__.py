"""Voxelmill's segment service: a series in, a label map out."""
