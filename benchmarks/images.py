"""The cost of build-images, compared with the engine's own builds of the same contexts, and of a second run.

Needs an engine with a base image: `eval "$(.ci/services start)"`.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio

sys.path.append(str(Path(__file__).parents[1]))
from evalkit.containers import docker_cli
from evalkit.images import builder
from measure import EVALKIT, Cost, Figure, Target, describe, in_turn, ratios, report, run
from tests.support.agents import make_agent

COUNT, AT_ONCE = 100, 12
WITH_AGENT = 20
BASE = os.environ.get("EVALKIT_TEST_BUSYBOX_IMAGE", "")
PYTHON = os.environ.get("EVALKIT_TEST_PYTHON_IMAGE", "")
_OURS, _BARE = "evalkit-bench", "evalkit-bare"


def make_tasks(folder: Path, count: int = COUNT) -> Path:
    """Make tasks with unique contents, so that no contender finds another's work in the build cache."""
    for number in range(count):
        task = folder / f"task-{number:03}"
        for part in ("environment", "tests"):
            (task / part).mkdir(parents=True)
        (task / "instruction.md").write_text("…")
        (task / "tests" / "test.sh").write_text("exit 0\n")
        (task / "environment" / "Dockerfile").write_text(f"FROM {BASE}\nCOPY note /note\n")
        (task / "environment" / "note").write_text(secrets.token_hex())
    return folder


def build_bare(folder: Path) -> Cost:
    """Build by the engine's command alone, as many images at once."""
    found = anyio.run(_find_builder)
    script = "\n".join(
        f"env {shlex.join(f'{name}={value}' for name, value in found.environment.items())} "
        + shlex.join(found.command("--tag", f"{_BARE}:{task.name}", str(task / "environment")))
        for task in sorted(folder.iterdir())
    )
    (folder.parent / "commands").write_text(script)
    parallel = 'tr "\\n" "\\0" < commands | xargs -0 -P "$0" -I{} sh -c "{} >> log 2>&1"'
    return run(["sh", "-c", parallel, str(AT_ONCE)], cwd=folder.parent)


async def _find_builder() -> builder.Builder:
    return await builder.find_builder(await docker_cli.find())


def build(folder: Path, *settings: str, built: int, skipped: int) -> Cost:
    command = [*EVALKIT, "build-images", str(folder), "--workers", str(AT_ONCE), "--quiet"]
    given = [part for each in (f"images.repository={_OURS}", *settings) for part in ("--set", each)]
    cost = run([*command, *given], cwd=folder.parent)
    document = json.loads(cost.output)
    if (document["built"], document["skipped"]) != (built, skipped):
        sys.exit(f"not what was to be done: {document}")
    return cost


def bake(folder: Path, count: int) -> Cost:
    """Build images with an agent that has never been packed or installed before."""
    agent = make_agent(folder.parent / "agent", version=secrets.token_hex(4))
    settings = (f"images.agent_source={agent}", f"images.agent_base={PYTHON}", "images.network=host")
    return build(folder, *settings, built=count, skipped=0)


@contextmanager
def cleaned_up() -> Iterator[None]:
    try:
        yield
    finally:
        for repository in (_OURS, _BARE):
            listed = subprocess.run(["docker", "images", "-q", repository], capture_output=True, text=True, check=True)
            if listed.stdout:
                subprocess.run(["docker", "rmi", "-f", *set(listed.stdout.split())], capture_output=True, check=False)


def main() -> int:
    if not BASE:
        sys.exit('no engine: eval "$(.ci/services start)" first')
    with tempfile.TemporaryDirectory(prefix="evalkit-bench-") as scratch, cleaned_up():
        places = (Path(scratch, str(number), "tasks") for number in range(1000))
        folders = map(make_tasks, places)
        last: list[Path] = []

        def first() -> Cost:
            last[:] = [next(folders)]
            return build(last[0], built=COUNT, skipped=0)

        costs = in_turn(
            {
                "bare engine": lambda: build_bare(next(folders)),
                "evalkit": first,
                "evalkit, all there": lambda: build(last[0], built=0, skipped=COUNT),
                "evalkit, with an agent": lambda: bake(make_tasks(next(places), WITH_AGENT), WITH_AGENT),
                "evalkit, with an agent, 1 image": lambda: bake(make_tasks(next(places), 1), 1),
            }
        )
    again = [cost.wall * 1000 / COUNT for cost in costs["evalkit, all there"]]
    rounds = zip(costs["evalkit"], costs["bare engine"], costs["evalkit, all there"], strict=True)
    beyond = [(ours.cpu - bare.cpu - none.cpu) * 1000 / COUNT for ours, bare, none in rounds]
    baked = [json.loads(cost.output) for cost in costs["evalkit, with an agent"]]
    further = zip(costs["evalkit, with an agent"], costs["evalkit, with an agent, 1 image"], strict=True)
    targets = [
        Target("wall over the bare engine", ratios(costs["evalkit"], costs["bare engine"]), 1.2),
        Target("ms per image that is there", Figure.of(again), 30),
        Target("ms of CPU per image beyond the engine's own command and start-up", Figure.of(beyond), 20),
        Target("MB of the largest worker", Figure.of([cost.worker_megabytes for cost in costs["evalkit"]]), 40),
        Target("times that the agent is packed", Figure.of([document["sdist"]["builds"] for document in baked]), 1),
    ]
    return report(
        "images",
        targets,
        workload=f"{COUNT} thin images, or {WITH_AGENT} with an agent, {AT_ONCE} at once",
        costs=describe(costs),
        sdist_seconds=vars(Figure.of([document["sdist"]["seconds"] for document in baked])),
        ms_per_further_image_with_an_agent=vars(
            Figure.of([(many.wall - one.wall) * 1000 / (WITH_AGENT - 1) for many, one in further])
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
