"""The catalog's migrations, written by hand; `voxelmill_shared.migrations` applies them."""
