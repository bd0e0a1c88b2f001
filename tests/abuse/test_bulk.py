"""Agents that produce much: memory stays flat, rows stay small, and nothing of it is lost."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.abuse import DONE, Act, infer, make_acts, patch_of, row_of, watch_memory
from tests.support.cli import Evalkit, parse_strictly

FLAT = 160 << 10  # KB; with nothing to do, a run takes about 100 MB
MEGABYTE = 1 << 20

pytestmark = [
    pytest.mark.usefixtures("contained"),
    pytest.mark.parametrize("sandboxed", [True, False], ids=["sandboxed", "unsandboxed"]),
]


def measure(evalkit: Evalkit, name: str, *arguments: object) -> Any:
    """What a command printed, if it did not take more memory than others."""
    out, err = (evalkit.folder / f"{name}.{kind}" for kind in ("out", "err"))
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = evalkit.start(*arguments, stdout=stdout, stderr=stderr)
        peak = watch_memory(process)
    assert "Traceback" not in err.read_text(errors="replace")
    assert peak < FLAT
    (line,) = out.read_bytes().splitlines()
    return parse_strictly(line)


def resolve_flatly(evalkit: Evalkit, acts: dict[str, Act]) -> None:
    make_acts(evalkit, acts)
    assert measure(evalkit, "document", *infer())["ids"]["resolved"] == sorted(acts)
    assert (evalkit.run_directory() / "results.jsonl").stat().st_size < 4000 * len(acts)
    evalkit.assert_nothing_left()


def check_printing(evalkit: Evalkit, megabytes: int, kept: int) -> None:
    many_lines = f"{DONE}; yes 0123456789012345678901234567890 | head -c {megabytes // 2}M"
    one_line = f"{DONE}; head -c {megabytes // 2}M /dev/zero; printf '\\377\\033[2J' >&2"
    resolve_flatly(evalkit, {"many-lines": Act(many_lines), "one-line": Act(one_line)})
    for name in ("many-lines", "one-line"):
        log = evalkit.run_directory() / "instances" / name / "attempt-1" / "agent.log"
        assert 0 <= log.stat().st_size - kept * MEGABYTE < MEGABYTE


def check_patch(evalkit: Evalkit, megabytes: int) -> None:
    """Half of it is binary for git; the other half is text that is neither UTF-8 nor free of NUL."""
    half = megabytes // 2
    text = (
        f"(yes 'plain text at the beginning, as far as git looks' | head -c 20000; printf '\\377\\376\\000\\200\\n';"
        f" yes \"$(printf 'no \\377 utf-8')\" | head -c {half}M) > text"
    )
    resolve_flatly(evalkit, {"much": Act(f"{DONE}; {text}; head -c {half}M /dev/urandom > random")})
    row, patch = row_of(evalkit, "much"), patch_of(evalkit, "much")
    assert row["patch"]["bytes"] == len(patch) > megabytes * MEGABYTE
    assert b"\xff\xfe\0\x80\n+no \xff utf-8\n" in patch
    assert b"GIT binary patch" in patch
    predicted = measure(evalkit, "predictions", "predictions")["model_patch"]
    assert predicted.encode("utf-8", "surrogateescape") == patch


def test_printing_100_megabytes(evalkit: Evalkit, sandboxed: bool) -> None:
    evalkit.choose_sandbox(sandboxed)
    check_printing(evalkit, 100, kept=50)


@pytest.mark.slow
def test_printing_a_gigabyte(evalkit: Evalkit, sandboxed: bool) -> None:
    evalkit.choose_sandbox(sandboxed)
    check_printing(evalkit, 1024, kept=256)


def test_a_patch_of_10_megabytes(evalkit: Evalkit, sandboxed: bool) -> None:
    evalkit.choose_sandbox(sandboxed)
    check_patch(evalkit, 10)


@pytest.mark.slow
def test_a_patch_of_100_megabytes(evalkit: Evalkit, sandboxed: bool) -> None:
    evalkit.choose_sandbox(sandboxed)
    check_patch(evalkit, 100)


@pytest.mark.slow
def test_many_files(evalkit: Evalkit, sandboxed: bool) -> None:
    evalkit.choose_sandbox(sandboxed)
    many = "for d in `seq 40`; do mkdir $d; (cd $d; for f in `seq 50`; do echo $d > $f; done); done"
    resolve_flatly(evalkit, {"many": Act(f"{DONE}; {many}")})
    assert patch_of(evalkit, "many").count(b"\ndiff --git ") == 2_000
