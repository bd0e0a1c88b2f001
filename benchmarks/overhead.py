"""The overhead of infer: 300 instances of 0.5 s, 30 at once, start-up included.

The same workload runs in the peers that `make peers` has installed.
"""

from __future__ import annotations

import sys

import peers
from measure import Cost, Figure, Target, describe, in_folder, in_turn, infer, ratios, report, run

INSTANCES, SECONDS, WORKERS = 300, 0.5, 30
IDEAL = INSTANCES * SECONDS / WORKERS

_FLOOR = f"""
import asyncio
async def main():
    turns = asyncio.Semaphore({WORKERS})
    async def work():
        async with turns:
            await asyncio.sleep({SECONDS})
    await asyncio.gather(*(work() for _ in range({INSTANCES})))
asyncio.run(main())
"""


def floor() -> Cost:
    return run([sys.executable, "-c", _FLOOR])


def main() -> int:
    contenders = {
        "floor": floor,
        "evalkit": in_folder(lambda folder: infer(folder, INSTANCES, SECONDS, 0, WORKERS)),
        "evalkit, 1 instance": in_folder(lambda folder: infer(folder, 1, SECONDS, 0, WORKERS)),
        **peers.contenders(INSTANCES, SECONDS, 0, WORKERS),
    }
    costs = in_turn(contenders)
    many, one = costs["evalkit"], costs["evalkit, 1 instance"]
    each = [(a.cpu - b.cpu) * 1000 / (INSTANCES - 1) for a, b in zip(many, one, strict=True)]
    targets = [
        Target("wall / ideal, start-up included", Figure.of([cost.wall / IDEAL for cost in many]), 1.15),
        Target("CPU per instance, ms", Figure.of(each), 1.0),
    ]
    workload = f"{INSTANCES} instances of {SECONDS} s, {WORKERS} at once: ideal {IDEAL} s"
    over_floor = {"wall over floor": vars(ratios(many, costs["floor"]))}
    return report("overhead", targets, workload=workload, costs=describe(costs), **over_floor)


if __name__ == "__main__":
    sys.exit(main())
