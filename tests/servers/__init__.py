"""The real servers that tests run against: started privately, on loopback, and ended by pid."""
