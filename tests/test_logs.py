"""The log of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

import evalkit
from evalkit import logs
from evalkit.errors import DatasetError


def test_an_internal_error_is_in_the_log_of_the_run_with_the_version(tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    with pytest.raises(ZeroDivisionError), logs.written_to(log):
        raise ZeroDivisionError
    text = log.read_text()
    assert f"evalkit {evalkit.__version__}" in text
    assert "ZeroDivisionError" in text


def test_an_error_that_ends_a_command_is_no_internal_one(tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    with pytest.raises(DatasetError), logs.written_to(log):
        raise DatasetError("there is none")
    assert not log.exists()
