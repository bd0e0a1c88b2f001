"""What build-images costs beside the engine's own work: `python benchmarks/images.py [IMAGES] [WORKERS]`.

Needs an engine with a base image: `eval "$(.ci/services start)"`. Prints one JSON document.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio

from evalkit.images import client

BASE = os.environ["EVALKIT_TEST_BUSYBOX_IMAGE"]


def make_tasks(folder: Path, count: int) -> None:
    for number in range(count):
        task = folder / f"task-{number:03}"
        for part in ("environment", "tests"):
            (task / part).mkdir(parents=True)
        (task / "instruction.md").write_text("…")
        (task / "tests" / "test.sh").write_text("exit 0\n")
        (task / "environment" / "Dockerfile").write_text(f"FROM {BASE}\nCOPY note /note\n")
        (task / "environment" / "note").write_text(secrets.token_hex())


def build_bare(folder: Path, workers: int) -> float:
    """The same contexts by the engine alone, as many at once, with its command as it is."""
    builder = anyio.run(_find_builder)

    def build(task: Path) -> None:
        command = builder.command("--tag", f"evalkit-bare:{task.name}", str(task / "environment"))
        subprocess.run(command, env={**os.environ, **builder.environment}, check=True, capture_output=True)

    began = time.monotonic()
    with ThreadPoolExecutor(workers) as threads:
        list(threads.map(build, sorted(folder.iterdir())))
    return time.monotonic() - began


async def _find_builder() -> client.Builder:
    return await (await client.find()).builder()


def build_images(folder: Path, work: Path, workers: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "evalkit", "build-images", str(folder), "--workers", str(workers), "--quiet"]
    began = time.monotonic()
    ended = subprocess.run(
        [*command, "--set", "images.repository=evalkit-bench"], cwd=work, check=True, stdout=subprocess.PIPE
    )
    return {"seconds": time.monotonic() - began, **_counts(json.loads(ended.stdout))}


def _counts(document: dict[str, Any]) -> dict[str, Any]:
    return {name: document[name] for name in ("built", "skipped", "failed")}


def measure(count: int, workers: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        results = {}
        # Contents differ, so neither finds the other's work in the engine's cache.
        for name in ("ours", "bare", "ours_again"):
            make_tasks(work / name, count)
        ours = build_images(work / "ours", work, workers)
        results["bare_seconds"] = build_bare(work / "bare", workers)
        again = build_images(work / "ours_again", work, workers)
        skipping = build_images(work / "ours_again", work, workers)
        best = min(ours["seconds"], again["seconds"])
        results |= {"ours": ours, "ours_again": again, "ratio": best / results["bare_seconds"], "second_run": skipping}
        results["second_run_ms_per_image"] = skipping["seconds"] / count * 1000
        return {"images": count, "workers": workers, **results}


def clean_up() -> None:
    for repository in ("evalkit-bench", "evalkit-bare"):
        listed = subprocess.run(["docker", "images", "-q", repository], capture_output=True, text=True, check=True)
        if listed.stdout:
            subprocess.run(["docker", "rmi", "-f", *set(listed.stdout.split())], capture_output=True, check=False)


if __name__ == "__main__":
    try:
        print(
            json.dumps(
                measure(*map(int, [*sys.argv[1:], "100", "12"][:2] if len(sys.argv) < 3 else sys.argv[1:3])), indent=2
            )
        )
    finally:
        clean_up()
