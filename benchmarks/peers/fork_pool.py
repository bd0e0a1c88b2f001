"""A pool of forked processes that hand over whole histories: fork_pool.py INSTANCES SECONDS MEGABYTES WORKERS

Stands for OpenHands/benchmarks as it was before threads.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from threads import INSTANCES, WORKERS, work


def main() -> None:
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(WORKERS, mp_context=context) as pool, Path("output.jsonl").open("a") as file:
        outputs = []
        for done in as_completed([pool.submit(work, number) for number in range(INSTANCES)]):
            file.write(done.result().model_dump_json() + "\n")
            file.flush()
            outputs.append(done.result())
    assert len(outputs) == INSTANCES


if __name__ == "__main__":
    main()
