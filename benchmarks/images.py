"""What build-images costs beside the engine's own work on the same contexts, and what a second run costs.

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

from evalkit.images import client
from measure import EVALKIT, Cost, Figure, Target, describe, in_turn, ratios, report, run

COUNT, AT_ONCE = 100, 12
BASE = os.environ.get("EVALKIT_TEST_BUSYBOX_IMAGE", "")
_OURS, _BARE = "evalkit-bench", "evalkit-bare"


def make_tasks(folder: Path) -> Path:
    """Tasks with contents of their own, so that nobody finds another's work in the engine's cache."""
    for number in range(COUNT):
        task = folder / f"task-{number:03}"
        for part in ("environment", "tests"):
            (task / part).mkdir(parents=True)
        (task / "instruction.md").write_text("…")
        (task / "tests" / "test.sh").write_text("exit 0\n")
        (task / "environment" / "Dockerfile").write_text(f"FROM {BASE}\nCOPY note /note\n")
        (task / "environment" / "note").write_text(secrets.token_hex())
    return folder


def build_bare(folder: Path) -> Cost:
    """By the engine's own command alone, as many at once."""
    builder = anyio.run(_find_builder)
    script = "\n".join(
        f"env {shlex.join(f'{name}={value}' for name, value in builder.environment.items())} "
        + shlex.join(builder.command("--quiet", "--tag", f"{_BARE}:{task.name}", str(task / "environment")))
        for task in sorted(folder.iterdir())
    )
    (folder.parent / "commands").write_text(script)
    parallel = 'tr "\\n" "\\0" < commands | xargs -0 -P "$0" -I{} sh -c "{}"'
    return run(["sh", "-c", parallel, str(AT_ONCE)], cwd=folder.parent)


async def _find_builder() -> client.Builder:
    return await (await client.find()).builder()


def build(folder: Path, *, built: int, skipped: int) -> Cost:
    command = [*EVALKIT, "build-images", str(folder), "--workers", str(AT_ONCE), "--quiet"]
    cost = run([*command, "--set", f"images.repository={_OURS}"], cwd=folder.parent)
    document = json.loads(cost.output)
    if (document["built"], document["skipped"]) != (built, skipped):
        sys.exit(f"not what was to be done: {document}")
    return cost


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
        folders = (make_tasks(Path(scratch, str(number), "tasks")) for number in range(1000))
        last: list[Path] = []

        def first() -> Cost:
            last[:] = [next(folders)]
            return build(last[0], built=COUNT, skipped=0)

        costs = in_turn(
            {
                "bare engine": lambda: build_bare(next(folders)),
                "evalkit": first,
                "evalkit, all there": lambda: build(last[0], built=0, skipped=COUNT),
            }
        )
    again = [cost.wall * 1000 / COUNT for cost in costs["evalkit, all there"]]
    targets = [
        Target("wall over the bare engine", ratios(costs["evalkit"], costs["bare engine"]), 1.2),
        Target("ms per image that is there", Figure.of(again), 30),
    ]
    return report("images", targets, workload=f"{COUNT} thin images, {AT_ONCE} at once", costs=describe(costs))


if __name__ == "__main__":
    sys.exit(main())
