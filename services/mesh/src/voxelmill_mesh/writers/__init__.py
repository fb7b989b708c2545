"""Mesh files, byte for byte the same for the same meshes: no times, no random order."""
