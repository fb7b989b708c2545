"""Voxelmill's thumbnail service: pictures of every instance and every series."""
