"""The memory of infer: with trajectories of 0, 2 and 20 MB each, ten times the instances, and 1,000 workers.

Peers are measured with large trajectories. BENCH_MEGABYTES_MOST=2 leaves the largest ones out.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

import peers
from measure import Cost, Figure, Target, describe, in_folder, in_turn, infer, report

INSTANCES, SECONDS, WORKERS = 300, 0.5, 30
MOST = float(os.environ.get("BENCH_MEGABYTES_MOST", "20"))


def _infer(instances: int, seconds: float, megabytes: float, workers: int, folder: Path) -> Cost:
    return infer(folder, instances, seconds, megabytes, workers)


def main() -> int:
    sizes = [size for size in (0, 2, 20) if size <= MOST]
    contenders = {
        f"evalkit, {size} MB each": in_folder(partial(_infer, INSTANCES, SECONDS, size, WORKERS)) for size in sizes
    }
    contenders["evalkit, 300 short instances"] = in_folder(partial(_infer, 300, 0.05, 0, WORKERS))
    contenders["evalkit, 3,000 short instances"] = in_folder(partial(_infer, 3000, 0.05, 0, WORKERS))
    contenders["evalkit, 1,000 workers"] = in_folder(partial(_infer, 3000, 0.5, 0, 1000))
    contenders |= {f"{name}, 2 MB each": peer for name, peer in peers.contenders(300, SECONDS, 2, WORKERS).items()}
    costs = in_turn(contenders)
    peak = {name: [cost.megabytes for cost in each] for name, each in costs.items()}
    growth = [
        more - few
        for more, few in zip(peak["evalkit, 3,000 short instances"], peak["evalkit, 300 short instances"], strict=True)
    ]
    targets = [
        Target(f"peak MB with {size} MB of trajectory each", Figure.of(peak[f"evalkit, {size} MB each"]), 80)
        for size in sizes
    ]
    targets += [
        Target("MB that 3,000 instances take beyond 300", Figure.of(growth), 3),
        Target("peak MB with 1,000 workers", Figure.of(peak["evalkit, 1,000 workers"]), 200),
    ]
    workload = f"{INSTANCES} instances of {SECONDS} s, {WORKERS} at once; peak memory of the process tree"
    return report("memory", targets, workload=workload, costs=describe(costs))


if __name__ == "__main__":
    sys.exit(main())
