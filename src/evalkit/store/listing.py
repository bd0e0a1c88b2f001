"""Which runs there are, without reading them."""

from __future__ import annotations

from pathlib import Path

MANIFEST = "run.json"


def list_runs(output: Path) -> list[Path]:
    """All runs of a directory, the newest last."""
    found = output.glob(f"*/{MANIFEST}") if output.is_dir() else ()
    by_age = sorted((path.stat().st_mtime_ns, path.parent.name, path.parent) for path in found)
    return [path for _, _, path in by_age]
