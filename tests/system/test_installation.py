"""Hints fit the way in which evalkit was installed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from evalkit.system.installation import DISTRIBUTION, Installation, add_extra, find_installation, identify, install_hint

CHECKOUT = {"url": "file:///src/my%20evalkit", "dir_info": {"editable": True}}
DIRECTORY: dict[str, Any] = {"url": "file:///src/evalkit", "dir_info": {}}


@pytest.mark.parametrize(
    ("left", "installer", "direct_url", "hint"),
    [
        ("", "pip", {}, "{prefix}/bin/python -m pip install 'agent-evalkit[hub]'"),
        ("", "pip", CHECKOUT, "{prefix}/bin/python -m pip install -e '/src/my evalkit[hub]'"),
        ("", "pip", DIRECTORY, "{prefix}/bin/python -m pip install 'agent-evalkit[hub] @ file:///src/evalkit'"),
        ("", "uv\n", CHECKOUT, "uv pip install --python {prefix} -e '/src/my evalkit[hub]'"),
        ("pipx_metadata.json", "pip", {}, "pipx install --force 'agent-evalkit[hub]'"),
        ("pipx_metadata.json", "uv", DIRECTORY, "pipx install --force 'agent-evalkit[hub] @ file:///src/evalkit'"),
        ("uv-receipt.toml", "uv", {}, "uv tool install --force 'agent-evalkit[hub]'"),
        ("uv-receipt.toml", "uv", CHECKOUT, "uv tool install --force -e '/src/my evalkit[hub]'"),
        (
            "uv-receipt.toml",
            "uv",
            {"url": "https://example.org/evalkit", "vcs_info": {"vcs": "git", "commit_id": "c0ffee"}},
            "uv tool install --force 'agent-evalkit[hub] @ git+https://example.org/evalkit@c0ffee'",
        ),
    ],
)
def test_a_hint_names_the_tool_and_the_source(
    tmp_path: Path, left: str, installer: str, direct_url: dict[str, Any], hint: str
) -> None:
    if left:
        (tmp_path / left).touch()
    found = identify(str(tmp_path), installer, direct_url)
    assert add_extra("hub", found) == hint.format(prefix=tmp_path)


def test_this_installation_is_found() -> None:
    """The tests run where evalkit is installed: from a checkout, or from a wheel."""
    found = find_installation()
    assert found.prefix == sys.prefix
    assert add_extra("hub", found) == install_hint("hub")
    assert found.source.startswith("file://"), "it is on no index"


def test_an_evalkit_that_nobody_installed_has_a_hint_too() -> None:
    assert add_extra("hub", Installation("pip", sys.prefix)).endswith(f"install '{DISTRIBUTION}[hub]'")
