# ruff: noqa: PTH123  # a worker does without pathlib, to stay small
"""The process that builds images, one after the other. It imports only a small part of the standard library.

A build is a few commands. Their output goes to the image's log as it comes; a command that says nothing for too long
has stalled, one that is not done in time is given up, and either takes its whole process group with it.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

JOB_VARIABLE = "EVALKIT_BUILD_JOB"
_BLOCK = 1 << 16
_TAIL = 8000


@dataclass(frozen=True, slots=True)
class BuildCommand:
    """One command of an order, with its limits on time and silence in seconds."""

    name: str
    argv: tuple[str, ...]
    seconds: float
    silence: float


@dataclass(frozen=True, slots=True)
class Order:
    """The commands that make one image."""

    job: str
    commands: tuple[BuildCommand, ...]
    files: Mapping[str, str]
    """Files to be written first, by path."""
    environment: Mapping[str, str]
    log: str


@dataclass(frozen=True, slots=True)
class BuildReport:
    """The outcome of an order. `problem` names the first command that failed, and why."""

    problem: str | None
    tail: str
    seconds: Mapping[str, float]
    final: bool = False
    """Whether trying again is useless."""
    errno: int | None = None
    """The system's error number, where a command could not be run."""


def serve(connection: Connection) -> None:
    """Carry out orders until the parent closes the connection. ^C is left to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(EOFError, ConnectionError):
        while True:
            connection.send(carry_out(connection.recv()))


def carry_out(order: Order) -> BuildReport:
    seconds: dict[str, float] = {}
    try:
        return _carry_out(order, seconds)
    except OSError as error:
        return BuildReport(f"cannot be run: {error}", "", seconds, errno=error.errno)


def _carry_out(order: Order, seconds: dict[str, float]) -> BuildReport:
    with open(order.log, "ab", buffering=0) as log:
        for path, text in order.files.items():
            with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
                file.write(text)
        for command in order.commands:
            began = time.monotonic()
            start = os.fstat(log.fileno()).st_size
            problem, final = _run(command, order, log)
            seconds[command.name] = round(time.monotonic() - began, 3)
            if problem is not None:
                return BuildReport(f"{command.name} {problem}", _read_tail(order.log, start), seconds, final)
    return BuildReport(None, "", seconds)


def _run(command: BuildCommand, order: Order, log: BinaryIO) -> tuple[str | None, bool]:
    """Run a command. Returns why it failed, if it did, and whether that is final."""
    process = subprocess.Popen(
        command.argv,
        env={**os.environ, **order.environment, JOB_VARIABLE: order.job},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    assert process.stdout is not None
    deadline = time.monotonic() + command.seconds
    try:
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                return f"was not done after {command.seconds:g} s", True
            if not select.select([process.stdout], [], [], min(left, command.silence))[0]:
                if left > command.silence:
                    return f"stalled: it said nothing for {command.silence:g} s", False
                continue
            block = os.read(process.stdout.fileno(), _BLOCK)
            if not block:
                break
            log.write(block)
        code = process.wait(max(0.0, deadline - time.monotonic()))
        return (f"failed with status {code}", False) if code else (None, False)
    except subprocess.TimeoutExpired:
        return f"was not done after {command.seconds:g} s", True
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        process.stdout.close()


def _read_tail(path: str, start: int) -> str:
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(start, size - _TAIL))
        return file.read().decode("utf-8", "replace")
