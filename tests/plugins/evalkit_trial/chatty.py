"""Parts that prints to standard output in every way there is, whenever they can."""

from __future__ import annotations

import ctypes
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterable

from evalkit.config import Config
from evalkit.domain.protocols import Benchmark, Workspace
from evalkit.domain.records import Answer, Grade, Instance, Job, Meter, Result, Usage
from evalkit.testing import FakeBenchmark, submit

_libc = ctypes.CDLL(None)


def chatter(occasion: str) -> None:
    print(f"print {occasion}")
    print(f"original {occasion}", file=sys.__stdout__, flush=True)
    os.write(1, f"write {occasion}\n".encode())
    _libc.puts(f"C library {occasion}".encode())  # not flushed: comes out when the process ends
    _libc.printf(b"%s", f"unfinished C line {occasion}".encode())
    subprocess.run(["sh", "-c", f"echo child {occasion}; (echo grandchild {occasion} &)"], check=True)
    thread = threading.Thread(target=print, args=(f"thread {occasion}",))
    thread.start()
    thread.join()
    logging.getLogger("chatty").warning("log %s", occasion)
    sys.stdout.flush()


logging.basicConfig(stream=sys.stdout, level=logging.DEBUG, force=True)
chatter("at import")


class ChattyAgent:
    async def solve(self, job: Job, workspace: Workspace, meter: Meter) -> None:
        chatter(f"while solving {job.instance.id}")
        meter.add(Usage(llm_calls=1, cost_usd=0.5))
        await submit(workspace, b"right")


class ChattyBenchmark(FakeBenchmark):
    def load(self) -> Iterable[Instance]:
        chatter("while loading")
        return super().load()

    async def prepare(self, job: Job, workspace: Workspace) -> None:
        chatter("while preparing")
        await super().prepare(job, workspace)

    async def collect(self, job: Job, workspace: Workspace) -> Answer:
        chatter("while collecting")
        return await super().collect(job, workspace)

    async def grade(self, job: Job, answer: Answer, workspace: Workspace) -> Grade:
        chatter("while grading")
        return await super().grade(job, answer, workspace)


def create_agent(_config: Config, _benchmark: Benchmark) -> ChattyAgent:
    chatter("at creation")
    return ChattyAgent()


def create_benchmark(_config: Config) -> ChattyBenchmark:
    chatter("at creation")
    return ChattyBenchmark(3)


def accept(_result: Result) -> bool:
    chatter("while judging")
    return True
