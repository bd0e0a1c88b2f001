"""Puts the completions of shells into the wheel, and not beside a checkout that is installed with `pip install -e`.

There hatchling would make a folder `evalkit` in site-packages that is no package, with copies that grow old.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.config import BuilderConfig
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NAMES = ("_evalkit", "evalkit.bash", "evalkit.fish")


class Completions(BuildHookInterface[BuilderConfig]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "standard":
            folder = Path(self.root) / "completions"
            build_data["force_include"].update({str(folder / name): f"evalkit/completions/{name}" for name in NAMES})
