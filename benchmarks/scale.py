"""20,000 instances and 1,000 workers in one process, and planning to resume a run of 100,000 rows."""

from __future__ import annotations

import json
import sys
import tempfile
from datetime import datetime
from pathlib import Path

from measure import EVALKIT, HERE, Cost, Figure, Target, describe, in_turn, infer, report, run

INSTANCES, WORKERS, ROWS = 20_000, 1000, 100_000
SECONDS = 1.0
SHARE = 5


def steadiness(run_directory: Path) -> float:
    """The rate of the slowest fifth of the results over that of the quickest, without the first and last workers."""
    moments = []
    with (run_directory / "results.jsonl").open() as rows:
        moments += [datetime.fromisoformat(json.loads(row)["finished_at"]).timestamp() for row in rows]
    moments = sorted(moments)[WORKERS:-WORKERS]
    size = len(moments) // SHARE
    spans = [moments[(n + 1) * size - 1] - moments[n * size] for n in range(SHARE)]
    return min(spans) / max(spans)


def lengthen(run_directory: Path) -> None:
    """Repeat the rows of the run, as if everything had been tried again many times."""
    results = run_directory / "results.jsonl"
    once = results.read_bytes()
    with results.open("ab") as file:
        for _ in range(ROWS // INSTANCES - 1):
            file.write(once)


def plan(folder: Path, instances: int) -> Cost:
    environment = {"PYTHONPATH": str(HERE / "workload"), "BENCH_INSTANCES": str(instances)}
    return run([*EVALKIT, "resume", "run", "--dry-run"], cwd=folder, env=environment)


def main() -> int:
    steady, large = [], []
    with tempfile.TemporaryDirectory(prefix="evalkit-bench-") as scratch:
        one = Path(scratch, "one")
        one.mkdir()
        infer(one, 1, 0, 0, 1)
        many: Path

        def scale() -> Cost:
            nonlocal many
            many = Path(tempfile.mkdtemp(dir=scratch))
            cost = infer(many, INSTANCES, SECONDS, 0, WORKERS)
            steady.append(steadiness(many / "runs" / "run"))
            large.append(cost.megabytes)
            lengthen(many / "runs" / "run")
            return cost

        costs = in_turn(
            {
                "infer": scale,
                "plan from 100,000 rows": lambda: plan(many, INSTANCES),
                "plan from 1 row": lambda: plan(one, 1),
            }
        )
    planning = [a.wall - b.wall for a, b in zip(costs["plan from 100,000 rows"], costs["plan from 1 row"], strict=True)]
    weight = [cost.megabytes for cost in costs["plan from 100,000 rows"]]
    targets = [
        Target("rate of the slowest fifth over the quickest", Figure.of(steady), 0.8, at_least=True),
        Target("seconds to plan from 100,000 rows", Figure.of(planning), 1.0),
        Target("MB to plan from 100,000 rows", Figure.of(weight), 100),
    ]
    workload = f"{INSTANCES} instances of {SECONDS} s, {WORKERS} at once: ideal {INSTANCES * SECONDS / WORKERS} s"
    return report("scale", targets, workload=workload, costs=describe(costs), megabytes=vars(Figure.of(large)))


if __name__ == "__main__":
    sys.exit(main())
