"""The command voxelmill: the operator's tool, and all services in one process."""
