"""Asyncio over a thread for each instance, which holds its history as models until it is done; threads.py as others.

Stands for OpenHands/benchmarks, whose orchestrator needs services that are not here.
"""

from __future__ import annotations

import asyncio
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydantic import BaseModel

INSTANCES, WORKERS = int(sys.argv[1]), int(sys.argv[4])
SECONDS, MEGABYTES = float(sys.argv[2]), float(sys.argv[3])
STEPS = 20 if MEGABYTES else 1


class Event(BaseModel):
    source: str
    content: str


class Output(BaseModel):
    instance_id: str
    patch: str
    history: list[Event]


def work(number: int) -> Output:
    history = []
    for step in range(STEPS):
        time.sleep(SECONDS / STEPS)
        history.append(Event(source="agent", content=str(step) + "x" * int(MEGABYTES * 1e6 / STEPS)))
    return Output(instance_id=f"sleep-{number:06}", patch="patch", history=history)


async def main() -> None:
    loop = asyncio.get_running_loop()
    outputs = []
    with ThreadPoolExecutor(WORKERS) as threads, Path("output.jsonl").open("a") as file:
        for done in asyncio.as_completed([loop.run_in_executor(threads, work, n) for n in range(INSTANCES)]):
            output = await done
            file.write(output.model_dump_json() + "\n")
            file.flush()
            outputs.append(output)
    assert len(outputs) == INSTANCES


if __name__ == "__main__":
    asyncio.run(main())
