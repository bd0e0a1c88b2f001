"""The real command line as a child process, and what it leaves on the machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import pytest

import evalkit
from evalkit.workspaces.sandbox import find_bubblewrap
from forkserver import ForkServer, Order, Running

PLUGINS = Path(__file__).parent / "plugins"
IMPORTABLE = os.pathsep.join((str(PLUGINS), str(Path(evalkit.__file__).parents[1])))
"""For child processes: the evalkit that is tested, also where another checkout is the one that is installed."""
REQUIRED = os.environ.get("EVALKIT_TEST_REQUIRE", "").split(",")


def require(what: str, present: object, reason: str) -> None:
    """Skip where the machine lacks something, but fail where it was promised."""
    if not present:
        assert what not in REQUIRED, f"EVALKIT_TEST_REQUIRE says there is {what}, but: {reason}"
        pytest.skip(reason)


def require_program(name: str) -> str:
    found = shutil.which(name)
    require(name, found, f"there is no {name}")
    assert found is not None
    return found


def parse_strictly(text: bytes) -> Any:
    """One JSON document as the standard has it: no NaN, and nothing before or after."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


@dataclass(frozen=True)
class Finished:
    code: int
    stdout: bytes
    stderr: str

    @cached_property
    def document(self) -> Any:
        assert self.stdout.endswith(b"\n"), (self.stdout, self.stderr)
        return parse_strictly(self.stdout)

    @property
    def complaint(self) -> str:
        """The one line for people that an error ends in."""
        assert "Traceback" not in self.stderr, self.stderr
        lines = self.stderr.splitlines()
        complaints = [line for line in lines if line.startswith("evalkit: ")]
        assert len(complaints) == 1, self.stderr
        assert lines[-1] == complaints[0], self.stderr
        return complaints[0]

    def refused(self, code: int, kind: str, *words: str) -> None:
        """This is how every user's mistake ends: a code, a document and a line, which say the same."""
        assert self.code == code, (self.code, self.stdout, self.stderr)
        error = self.document["error"]
        assert error["kind"] == kind, error
        assert error["message"] in self.complaint
        for word in words:
            assert word in self.complaint, (word, self.complaint)


@dataclass
class Evalkit:
    folder: Path
    server: ForkServer
    variables: dict[str, str] = field(default_factory=dict)
    powerless: bool = False

    def __post_init__(self) -> None:
        self.temporary.mkdir(exist_ok=True)

    @property
    def temporary(self) -> Path:
        return self.folder / "tmp"

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    def __call__(self, *arguments: object, timeout: float = 120, **variables: str) -> Finished:
        process = self.start(*arguments, variables=variables)
        try:
            out, err = process.communicate(timeout=timeout)
        finally:
            process.kill()
        assert process.returncode is not None
        return Finished(process.returncode, out, err.decode("utf-8", "replace"))

    def start(
        self,
        *arguments: object,
        stdout: IO[bytes] | int = subprocess.PIPE,
        stderr: IO[bytes] | int = subprocess.PIPE,
        variables: Mapping[str, str] | None = None,
    ) -> Running:
        environment = self.environment() | dict(variables or {})
        order = Order([str(each) for each in arguments], str(self.folder), environment, self.powerless)
        return self.server.start(order, stdout, stderr)

    def argv(self, *arguments: object) -> list[str]:
        """For what needs an interpreter that has not imported anything yet."""
        return [sys.executable, "-m", "evalkit", *map(str, arguments)]

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("EVALKIT_", "PYTHON"))}
        return (
            kept | {"TMPDIR": str(self.temporary), "HOME": str(self.folder), "PYTHONPATH": IMPORTABLE} | self.variables
        )

    def run_directory(self) -> Path:
        (only,) = self.runs.iterdir()
        return only

    def rows(self) -> list[dict[str, Any]]:
        path = self.run_directory() / "results.jsonl"
        return [parse_strictly(line) for line in path.read_bytes().splitlines()]

    def rows_so_far(self) -> list[bytes]:
        return [line for path in self.runs.glob("*/results.jsonl") for line in path.read_bytes().splitlines()]

    def choose_sandbox(self, sandboxed: bool) -> None:
        """Run local workspaces with bwrap, or as on a machine where there is none."""
        if sandboxed:
            require("bubblewrap", find_bubblewrap(), "there is no bwrap that works")
            return
        programs = self.folder / "programs"
        programs.mkdir()
        for folder in reversed(os.environ.get("PATH", os.defpath).split(":")):
            for program in Path(folder).glob("*"):
                if program.name != "bwrap":
                    (programs / program.name).unlink(missing_ok=True)
                    (programs / program.name).symlink_to(program)
        self.variables["PATH"] = str(programs)

    def assert_nothing_left(self) -> None:
        """No process that was started from here, and no temporary file."""
        assert processes_of(self.folder) == {}
        assert list(self.temporary.iterdir()) == []


def wait_until(condition: Callable[[], bool], process: Running | subprocess.Popen[bytes]) -> None:
    """Look until it is so, as long as the process lives."""
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def processes_of(folder: Path) -> dict[int, str]:
    """The command lines of processes that know of a folder, by their arguments or their environment."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            command = (entry / "cmdline").read_bytes()
            if int(entry.name) != os.getpid() and os.fsencode(folder) in command + (entry / "environ").read_bytes():
                found[int(entry.name)] = command.replace(b"\0", b" ").decode("utf-8", "replace")
    return found


def all_processes() -> dict[int, str]:
    """All processes there are, zombies included, with their names."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it may just have ended
            found[int(entry.name)] = (entry / "comm").read_text().strip()
    return found


def make_task(
    folder: Path,
    *,
    tests: str = "exit 0",
    solution: str | None = None,
    files: Mapping[str, str | bytes] | None = None,
    toml: str = "",
) -> Path:
    """A task directory. Its tests are a shell script that starts in the work folder."""
    _write(folder / "instruction.md", f"Do {folder.name}.\n")
    _write(folder / "tests" / "test.sh", f"#!/bin/sh\n{tests}\n")
    if solution is not None:
        _write(folder / "solution" / "solve.sh", f"#!/bin/sh\n{solution}\n")
    if toml:
        _write(folder / "task.toml", toml)
    for name, content in (files or {}).items():
        _write(folder / "environment" / name, content)
    return folder


def make_tasks(folder: Path, count: int, make: Callable[..., Path] = make_task, **contents: Any) -> Path:
    for number in range(count):
        make(folder / f"task-{number:03}", **contents)
    return folder


def _write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
