"""Workspaces in containers of a Docker engine."""
