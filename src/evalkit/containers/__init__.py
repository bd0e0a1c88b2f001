"""Everything that is said to a container engine or a registry."""
