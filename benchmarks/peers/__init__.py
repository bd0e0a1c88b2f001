"""What teams use today, on the same workload. Each driver runs in the environment of its tool, see `make peers`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from measure import Cost, in_folder, run

_HERE = Path(__file__).parent
ENVIRONMENTS = Path(os.environ.get("BENCH_PEERS") or Path.home() / ".cache/evalkit-bench")
TOOLS = {"mini-swe-agent": "mini.py", "inspect-ai": "inspect_eval.py"}
SUBSTITUTES = {"threads that hold histories": "threads.py", "30 forked processes": "fork_pool.py"}


def python_of(tool: str) -> Path:
    return ENVIRONMENTS / tool / "bin" / "python"


def contenders(instances: int, seconds: float, megabytes: float, workers: int) -> dict[str, Callable[[], Cost]]:
    """The tools that are installed, and stand-ins for an orchestrator that cannot be installed here."""
    drivers = {tool: (str(python_of(tool)), driver) for tool, driver in TOOLS.items() if python_of(tool).exists()}
    drivers |= {name: (sys.executable, driver) for name, driver in SUBSTITUTES.items()}
    workload = (str(instances), str(seconds), str(megabytes), str(workers))
    return {
        name: in_folder(partial(_drive, (python, str(_HERE / driver), *workload)))
        for name, (python, driver) in drivers.items()
    }


def _drive(command: tuple[str, ...], folder: Path) -> Cost:
    return run(command, cwd=folder)
