"""Inspect AI over samples that only take time: inspect_eval.py INSTANCES SECONDS MEGABYTES WORKERS"""

from __future__ import annotations

import asyncio
import sys

import inspect_ai
from inspect_ai import Task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ChatMessageAssistant
from inspect_ai.scorer import includes
from inspect_ai.solver import Generate, Solver, TaskState, solver

INSTANCES, WORKERS = int(sys.argv[1]), int(sys.argv[4])
SECONDS, MEGABYTES = float(sys.argv[2]), float(sys.argv[3])
STEPS = 20 if MEGABYTES else 1


@solver
def sleeper() -> Solver:
    async def solve(state: TaskState, _generate: Generate) -> TaskState:
        for _ in range(STEPS):
            await asyncio.sleep(SECONDS / STEPS)
            if MEGABYTES:
                state.messages.append(ChatMessageAssistant(content="x" * int(MEGABYTES * 1e6 / STEPS)))
        state.output.completion = "slept"
        return state

    return solve


def main() -> None:
    samples = [Sample(input="sleep", target="slept", id=f"sleep-{number:06}") for number in range(INSTANCES)]
    task = Task(dataset=MemoryDataset(samples), solver=sleeper(), scorer=includes())
    (log,) = inspect_ai.eval(task, model="mockllm/model", max_samples=WORKERS, log_dir="logs", display="none")
    if log.status != "success" or log.results is None or log.results.completed_samples != INSTANCES:
        sys.exit(f"not all samples came to a result: {log.status}")


if __name__ == "__main__":
    main()
