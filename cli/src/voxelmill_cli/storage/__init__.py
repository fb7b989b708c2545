"""`voxelmill storage`: files into a bucket and out of it, what lies there, and how much it takes."""
