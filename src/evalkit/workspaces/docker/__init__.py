"""Workspaces in containers of a Docker engine."""

from evalkit.workspaces.docker.workspaces import create

__all__ = ["create"]
