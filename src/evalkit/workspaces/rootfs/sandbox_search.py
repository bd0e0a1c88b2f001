"""Looks for the strongest sandbox that works on this machine."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from evalkit.errors import ConfigError, SandboxRequired
from evalkit.workspaces.rootfs.writable_root import Layering

NO_OVERLAY = "no overlay"
"""How a problem begins that every sandbox with an overlay would have."""
_WHERE = "name a folder of yours with room for images by EVALKIT_CACHE"

T = TypeVar("T")


def find_strongest(
    kind: str,
    candidates: Callable[[Layering, tuple[str, ...]], Iterable[T]],
    find_problem: Callable[[T], str | None],
) -> T:
    """The first that works: with an overlay if the kernel mounts one over the folder of images, else with copies.

    `candidates` gives sandboxes of one layering, strongest first. It is told what is weaker for the layering.
    """
    problems: list[str] = []
    for layering in ("overlay", "copy"):
        weaker = () if layering == "overlay" else (f"each workspace is a copy of its image ({problems[0]})",)
        for sandbox in candidates(layering, weaker):
            if (problem := find_problem(sandbox)) is None:
                return sandbox
            problems.append(problem)
            if problem.startswith(NO_OVERLAY):
                break
    raise SandboxRequired(
        f"workspaces of kind {kind} cannot be had here: {problems[-1]}",
        hint="a kernel that lets users make user namespaces is needed; see docs/clusters.md",
    )


def require_folder(images: Path) -> None:
    try:
        images.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="trial-", dir=images):
            pass
    except OSError as error:
        raise ConfigError(f"images cannot be kept in {images}: {error.strerror}", hint=_WHERE) from error
    if images.stat().st_uid != os.geteuid():
        raise ConfigError(f"{images} belongs to somebody else, and so do its images", hint=_WHERE)
