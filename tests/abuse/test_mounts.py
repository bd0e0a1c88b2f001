"""A machine on which file systems come and go, as those of containers do."""

from __future__ import annotations

import subprocess

import pytest

from tests.support.abuse import DONE, Act, run_acts
from tests.support.cli import Evalkit

pytestmark = pytest.mark.usefixtures("contained")

MOUNTS = 'while [ -d "$0" ]; do mount -t tmpfs tmpfs "$0/$1" && umount "$0/$1"; done'


def test_a_sandbox_is_made_although_mounts_go_away(evalkit: Evalkit) -> None:
    """bwrap fails where one does while it makes them all read-only."""
    evalkit.choose_sandbox(sandboxed=True)
    subprocess.run(["mount", "--make-rshared", "/"], check=True)  # as on most machines
    places = evalkit.folder / "places"
    for number in ("1", "2"):
        (places / number).mkdir(parents=True)
    busy = [subprocess.Popen(["sh", "-c", MOUNTS, places, number]) for number in ("1", "2")]
    try:
        run_acts(evalkit, {f"task-{number:02}": Act(DONE) for number in range(12)}, "--workers", 4)
    finally:
        places.rename(places.with_name("no-more"))
        for each in busy:
            each.wait()
