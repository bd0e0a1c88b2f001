"""The cost of a container of infer, compared with a bare loop of create, start, exec and remove through the SDK.

Needs an engine and an image: `eval "$(.ci/services start)"`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from measure import Cost, Figure, Target, describe, in_folder, in_turn, infer, ratios, report, run

COUNT, AT_ONCE = 100, 8
ASLEEP = 30
IMAGE = os.environ.get("EVALKIT_TEST_BUSYBOX_IMAGE", "")
_SMALL = ("--set", "workspace.memory=64m")  # with the default, few would be admitted at once

_BARE = f"""
import docker
from concurrent.futures import ThreadPoolExecutor
client = docker.from_env(max_pool_size={AT_ONCE})
def work(_):
    container = client.api.create_container({IMAGE!r}, ["sleep", "600"], host_config=client.api.create_host_config(
        init=True, network_mode="none"))["Id"]
    client.api.start(container)
    command = client.api.exec_create(container, ["sleep", "0"])["Id"]
    client.api.exec_start(command)
    assert client.api.exec_inspect(command)["ExitCode"] == 0
    client.api.remove_container(container, force=True, v=True)
with ThreadPoolExecutor({AT_ONCE}) as threads:
    list(threads.map(work, range({COUNT})))
"""


def run_containers(folder: Path, count: int, seconds: float, workers: int) -> Cost:
    return infer(folder, count, seconds, 0, workers, "--set", "workspace.kind=docker", *_SMALL)


def main() -> int:
    if not IMAGE:
        sys.exit('no engine: eval "$(.ci/services start)" first')
    os.environ["BENCH_IMAGE"] = IMAGE
    costs = in_turn(
        {
            "bare loop": lambda: run([sys.executable, "-c", _BARE]),
            "evalkit": in_folder(lambda folder: run_containers(folder, COUNT, 0, AT_ONCE)),
            "evalkit, 30 containers for 20 s": in_folder(lambda folder: run_containers(folder, ASLEEP, 20, ASLEEP)),
        }
    )
    polling = [cost.quietest for cost in costs["evalkit, 30 containers for 20 s"]]
    targets = [
        Target("wall over the bare loop, start-up included", ratios(costs["evalkit"], costs["bare loop"]), 1.3),
        Target("share of a core while 30 containers sleep", Figure.of(polling), 0.01),
    ]
    workload = f"{COUNT} containers, {AT_ONCE} at once, one command in each"
    return report("containers", targets, workload=workload, costs=describe(costs))


if __name__ == "__main__":
    sys.exit(main())
