"""How this evalkit was installed, and the command that adds a missing extra to it."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

DISTRIBUTION = "agent-evalkit"
"""The name on package indexes, where an unrelated project is called evalkit."""

Tool = Literal["pip", "uv", "pipx", "uv tool"]


@dataclass(frozen=True, slots=True)
class Installation:
    """An installation, as described by its metadata and folder."""

    tool: Tool
    prefix: str
    """The Python environment of the installation."""
    source: str = ""
    """URL of the archive, repository or directory that it was installed from; empty for an index."""
    editable: bool = False


def install_hint(extra: str) -> str:
    """The command that adds an extra to this installation."""
    return add_extra(extra, find_installation())


def add_extra(extra: str, there: Installation) -> str:
    if there.editable:
        wanted = f"{unquote(urlsplit(there.source).path)}[{extra}]"
    else:
        wanted = f"{DISTRIBUTION}[{extra}]" + (f" @ {there.source}" if there.source else "")
    option = " -e" if there.editable else ""
    wanted = shlex.quote(wanted)
    match there.tool:
        case "pipx":
            editable = " --editable" if there.editable else ""
            return f"pipx install --force{editable} {wanted}"
        case "uv tool":
            return f"uv tool install --force{option} {wanted}"
        case "uv":
            return f"uv pip install --python {shlex.quote(there.prefix)}{option} {wanted}"
        case "pip":
            return f"{shlex.quote(f'{there.prefix}/bin/python')} -m pip install{option} {wanted}"


def find_installation() -> Installation:
    from importlib.metadata import PackageNotFoundError, distribution  # slow, and for a hint only

    try:
        found = distribution(DISTRIBUTION)
    except PackageNotFoundError:
        return identify(sys.prefix, "", {})
    direct_url = json.loads(found.read_text("direct_url.json") or "{}")
    return identify(sys.prefix, found.read_text("INSTALLER") or "", direct_url)


def identify(prefix: str, installer: str, direct_url: Mapping[str, Any]) -> Installation:
    """Read what installers record: https://packaging.python.org/specifications/direct-url-data-structure."""
    source = str(direct_url.get("url", ""))
    if vcs := direct_url.get("vcs_info"):
        source = f"{vcs['vcs']}+{source}@{vcs['commit_id']}"
    editable = bool(direct_url.get("dir_info", {}).get("editable"))
    return Installation(_find_tool(Path(prefix), installer.strip()), prefix, source, editable)


def _find_tool(prefix: Path, installer: str) -> Tool:
    if (prefix / "pipx_metadata.json").exists():
        return "pipx"
    if (prefix / "uv-receipt.toml").exists():
        return "uv tool"
    return "uv" if installer == "uv" else "pip"
