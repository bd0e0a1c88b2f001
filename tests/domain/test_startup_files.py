from __future__ import annotations

import pytest

from evalkit.domain.startup_files import name_deciding


@pytest.mark.parametrize(
    "path",
    [
        "/bin/sh", "/usr/bin/bash", "/usr/local/bin/python3.12", "/etc/profile", "/etc/ld.so.preload", "/root/.bashrc",
        "/usr/lib/python3/dist-packages/sitecustomize.py", "/opt/venv/lib/python3.12/site-packages/evil.pth",
        "/usr/local/lib/python3.12/site-packages/_pytest/runner.py",
    ],
)  # fmt: skip
def test_what_decides_what_a_grader_runs_is_named(path: str) -> None:
    assert name_deciding([path, "/app/answer"]) == (f"{path} is not the image's",)


def test_work_is_not() -> None:
    assert name_deciding(["/app/bin/sh", "/bin", "/usr/bin", "/tmp/python3", "/app/test.py", "/etc/hosts"]) == ()


def test_no_more_are_named_than_can_be_read() -> None:
    reasons = name_deciding(f"/etc/profile.d/{number:02}.sh" for number in range(12))
    assert len(reasons) == 11
    assert reasons[-1] == "and 2 more"


def test_a_list_that_is_not_whole_is_a_reason_too() -> None:
    assert name_deciding(["/app/answer"], is_whole=False) == ("so many files were changed that not all were looked at",)
