"""Reference networks and the registry that finds them by name."""
