"""What build-images shows at a terminal."""

from __future__ import annotations

import pytest

from bench import Bench
from commandline import parse_strictly
from terminals import Terminal

pytestmark = pytest.mark.engine


def test_a_build_as_a_person_sees_it(bench: Bench) -> None:
    bench.task("quick", f"RUN echo {bench.repository}")
    bench.task("broken", f"RUN echo {bench.repository}; exit 3")
    for name in ("one", "two"):  # fewer than workers: whichever begin first, the others have their turn
        bench.task(f"slow-{name}", f"RUN echo {bench.repository}-{name}; sleep 1000")
    evalkit = bench.evalkit
    arguments = ("build-images", bench.tasks, "--workers", "3", *bench.settings(retries=0))
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
    bench.assert_nothing_left()
