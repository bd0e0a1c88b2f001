"""The start-up time of evalkit, compared with Python with Typer imported, and with its peers."""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path

import peers
from measure import EVALKIT, Target, describe, in_turn, infer, ratios, report, run

ROUNDS = 15
_COMMANDS = {
    "mini-swe-agent": ("mini-extra", "swebench", "--help"),
    "inspect-ai": ("inspect", "--help"),
    "harbor": ("harbor", "--help"),
}


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="evalkit-bench-") as scratch:
        folder = Path(scratch)
        infer(folder, 10, 0, 0, 10)
        run([*EVALKIT, "--version"])  # compiles the modules, as an installation does
        contenders = {
            "python": lambda: run([sys.executable, "-c", ""]),
            "python with typer": lambda: run([sys.executable, "-c", "import typer"]),
            "evalkit --version": lambda: run([*EVALKIT, "--version"]),
            "evalkit --help": lambda: run([*EVALKIT, "--help"]),
            "evalkit aggregate": lambda: run([*EVALKIT, "aggregate"], cwd=folder),
        }
        for tool, (program, *arguments) in _COMMANDS.items():
            path = peers.ENVIRONMENTS / tool / "bin" / program
            if path.exists():
                command = [str(path), *arguments]
                contenders[" ".join((program, *arguments))] = partial(run, command, cwd=folder)
        costs = in_turn(contenders, ROUNDS)
    typer = costs["python with typer"]
    targets = [
        Target("--version over import typer", ratios(costs["evalkit --version"], typer), 1.5),
        Target("aggregate of a small run over import typer", ratios(costs["evalkit aggregate"], typer), 2.5),
    ]
    return report("startup", targets, workload="whole processes", costs=describe(costs))


if __name__ == "__main__":
    sys.exit(main())
