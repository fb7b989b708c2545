"""`voxelmill bucket connect`: sets a store up so that its notifications reach ingest."""
