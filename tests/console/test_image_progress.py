"""What build-images shows at a terminal."""

from __future__ import annotations

import pytest

from tests.support.cli import parse_strictly
from tests.support.images import Builds
from tests.support.terminal import Terminal

pytestmark = pytest.mark.engine


def test_a_build_as_a_person_sees_it(builds: Builds) -> None:
    builds.task("quick", f"RUN echo {builds.repository}")
    builds.task("broken", f"RUN echo {builds.repository}; exit 3")
    for name in ("one", "two"):  # fewer than workers: whichever begin first, the others have their turn
        builds.task(f"slow-{name}", f"RUN echo {builds.repository}-{name}; sleep 1000")
    evalkit = builds.evalkit
    arguments = ("build-images", builds.tasks, "--workers", "3", *builds.settings(retries=0))
    terminal = Terminal(evalkit.argv(*arguments), evalkit.folder, evalkit.environment(), 140, 30)
    try:
        parts = ("2/4 images", "built 1", "skipped 0", "failed 1", "2 running", "slowest: ", "about ", "last error: ")
        terminal.wait_for(lambda text: all(part in text for part in parts) and text.count("  build ") == 2)
        terminal.press("\x03")
        assert terminal.finish() == 130
    finally:
        terminal.process.kill()
        terminal.process.wait()
    document = parse_strictly(terminal.stdout)
    assert (document["planned"], document["built"], document["failed"]) == (4, 1, 1)
    builds.assert_nothing_left()
