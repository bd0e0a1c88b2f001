"""Who solves."""
