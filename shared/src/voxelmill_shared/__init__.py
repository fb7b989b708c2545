"""The plumbing that Voxelmill's services share: events, worker runtime, transports, stores, database."""
