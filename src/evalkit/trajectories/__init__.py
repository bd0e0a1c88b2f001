"""Trajectories of agents: written one event a line, and converted to other formats."""
