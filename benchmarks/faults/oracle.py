"""Says what is wrong with what a command left behind. It knows how each instance has to end."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from evalkit.domain.failures import counts_against_agent
from faults.scene import Ended, Scene, eventually
from faults.workloads import End, Work, docker

Kind = Literal[
    "row lost",
    "row doubled",
    "wrong verdict",
    "blame",
    "exit code",
    "output",
    "traceback",
    "hang",
    "left over",
    "not done",
    "campaign",
]
_DOCUMENTED = (0, 1, 3, 130, 143)
_WITH_DOCUMENT = (0, 1, 2, 3)
_LONGEST_DETAIL = 1500


@dataclass(frozen=True)
class Finding:
    kind: Kind
    detail: str


def _finding(kind: Kind, detail: str) -> Finding:
    return Finding(kind, detail[-_LONGEST_DETAIL:])


def parse_strictly(text: bytes) -> Any:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def judge_command(ended: Ended, *, by_signal: bool = False, usage: bool = False) -> Iterator[Finding]:
    """What a command says and how it ends. `by_signal`: nobody could have handled what struck it."""
    named = " ".join(ended.argv[:3])
    if ended.hung:
        yield _finding("hang", f"{named} had not ended after {ended.seconds:.0f} s: {ended.stderr}")
        return
    if "Traceback" in ended.stderr and not (by_signal and ended.code < 0):
        yield _finding("traceback", f"{named}: {ended.stderr}")
    if ended.code < 0 and by_signal:
        if ended.stdout:
            yield from _judge_output(ended, named)
        return
    if ended.code not in _DOCUMENTED and not (usage and ended.code == 2):  # wrong usage
        yield _finding("exit code", f"{named} exited with {ended.code}: {ended.stderr}")
    if ended.stdout or ended.code in _WITH_DOCUMENT:
        yield from _judge_output(ended, named)


def _judge_output(ended: Ended, named: str) -> Iterator[Finding]:
    try:
        document = parse_strictly(ended.stdout)
    except ValueError as error:
        yield _finding("output", f"{named} exited with {ended.code}, stdout: {error}: {ended.stdout[-300:]!r}")
        return
    if not isinstance(document, dict):
        yield _finding("output", f"{named}: the document is {type(document).__name__}")
        return
    problem = document.get("error")
    if isinstance(problem, dict) and problem.get("kind") == "internal":
        yield _finding("traceback", f"{named}: {problem}")
    buckets = document.get("buckets")
    if isinstance(buckets, dict) and sum(buckets.values()) != document["total"]:
        yield _finding("output", f"{named}: the buckets are not the total: {buckets}, {document['total']}")


def judge_rows(known: Sequence[bytes], rows: Sequence[bytes], ends: Mapping[str, End]) -> Iterator[Finding]:
    """The rows of a run, against those that were there before and against how each instance has to end."""
    if rows[: len(known)] != known:
        gone = [line for line in known if line not in rows]
        yield _finding("row lost", f"{len(known)} rows were there, {len(rows)} are: {gone}")
    finished: Counter[tuple[str, int]] = Counter()
    for line in rows:
        try:
            row = parse_strictly(line)
        except ValueError as error:
            yield _finding("row lost", f"a line is no row: {error}: {line!r}")
            continue
        if row["outcome"] != "error":
            finished[row["instance_id"], row["attempt"]] += 1
        yield from _judge_row(row, ends)
    for (name, attempt), count in finished.items():
        if count > 1 or attempt != 1:
            yield _finding("row doubled", f"{name} has {count} results of attempt {attempt}")


def _judge_row(row: Mapping[str, Any], ends: Mapping[str, End]) -> Iterator[Finding]:
    name, end = row["instance_id"], ends.get(row["instance_id"])
    if end is None:
        yield _finding("row doubled", f"there is no instance {name}")
    elif row["outcome"] != "error" and End(row["outcome"], row["verdict"]) != end:
        yield _finding("wrong verdict", f"{name} should be {end}: {line_of(row)}")
    kind = (row["failure"] or {}).get("kind")
    if kind == "internal" or counts_against_agent(kind):
        yield _finding("blame", f"{name}: {row['failure']}")


def line_of(row: Mapping[str, Any]) -> str:
    return json.dumps({key: row.get(key) for key in ("outcome", "verdict", "failure", "stages", "note")})


def judge_completeness(rows: Sequence[bytes], ends: Collection[str]) -> Iterator[Finding]:
    done = {row["instance_id"] for row in map(parse_strictly, rows) if row["outcome"] != "error"}
    if missing := set(ends) - done:
        yield _finding("not done", f"after a resume without a fault, there is no result of {sorted(missing)}")


def judge_images(work: Work, *, done: bool) -> Iterator[Finding]:
    """Images that have a name are complete and, at the end, all of them are there."""
    listed = docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", work.repository).split()
    tags = [tag for tag in listed if not tag.endswith(":<none>")]
    for tag in tags:
        layers = len(json.loads(docker("image", "inspect", tag))[0]["RootFS"]["Layers"])
        if layers != work.layers:
            yield _finding("wrong verdict", f"{tag} has {layers} layers of {work.layers}")
    if done and len(tags) != len(work.ends):
        yield _finding("not done", f"after a build without a fault, there are {tags}")


def judge_leftovers(scene: Scene, work: Work) -> Iterator[Finding]:
    """What is left when the last command has ended. What it sweeps may take a moment to be gone."""
    if not scene.settle():
        yield _finding("left over", f"processes: {scene.processes()}")
    if not eventually(lambda: not list(scene.temporary.iterdir()), scene.patience):
        yield _finding("left over", f"temporary files: {[each.name for each in scene.temporary.iterdir()]}")
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    if mounted := [place for place in mounts if Path(place).is_relative_to(scene.folder)]:
        yield _finding("left over", f"mounts: {mounted}")
    if scene.engine is not None:
        yield from _judge_engine(scene, work)


def _judge_engine(scene: Scene, work: Work) -> Iterator[Finding]:
    ours = ("--filter", f"label=evalkit.run={scene.name}")
    for what, command in {
        "containers": ("ps", "--all", "--quiet", *ours),
        "volumes": ("volume", "ls", "--quiet", *ours),
        "networks": ("network", "ls", "--quiet", *ours),
    }.items():
        if not eventually(lambda command=command: not docker(*command), scene.patience):  # type: ignore[misc]  # a default
            yield _finding("left over", f"{what}: {docker(*command)}")
    if work.repository and (untagged := _untagged(work.repository)):
        yield _finding("left over", f"images without a name: {untagged}")


def _untagged(repository: str) -> list[str]:
    ours = ("--filter", "dangling=true", "--filter", "label=evalkit.image", "--quiet")
    found = []
    for each in docker("image", "ls", *ours).split():
        try:
            label = docker("image", "inspect", "--format", '{{index .Config.Labels "evalkit.image"}}', each)
        except subprocess.SubprocessError:  # another build's, gone in the meantime
            continue
        if label.startswith(repository):
            found.append(label)
    return found
