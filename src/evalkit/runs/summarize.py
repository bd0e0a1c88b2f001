"""The summary document of runs."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from evalkit import console
from evalkit.agents.builtin import RECORDED
from evalkit.domain.planning import Attempts
from evalkit.domain.results import Row
from evalkit.domain.summary import Audit, RunFacts, Tally
from evalkit.errors import ExitCode, UsageError, first_few
from evalkit.runs.stored_answers import find_answers
from evalkit.store.audit_file import read_audit
from evalkit.store.folders import list_runs
from evalkit.store.manifest import FILE as MANIFEST
from evalkit.store.rows import Unreadable
from evalkit.store.run_directory import RunDirectory, find_run
from evalkit.store.shard_manifests import missing_shards

if TYPE_CHECKING:
    from evalkit.store.foreign_run import ForeignRun

AnyRun: TypeAlias = "RunDirectory | ForeignRun"

_MOST_ALIKE = 3
_ACCEPTED = (
    f"a run of evalkit is a folder with {MANIFEST}; of other tools, name a folder with preds.json or output.jsonl, one"
    " of logs like logs/run_evaluation/RUN, a job of Harbor, a log of Inspect, a file of predictions, or a report"
)


def open_run(named: str | None, output: Path) -> AnyRun:
    """Open a run of evalkit or, if the path leads to one, a run of another tool."""
    if named is not None and os.path.exists(named) and not os.path.exists(Path(named) / MANIFEST):  # noqa: PTH110  # Path.exists raises where a name is too long
        from evalkit.store.foreign import open_foreign  # seldom needed

        foreign = open_foreign(Path(named))
        if foreign is not None:
            return foreign
        if not list_runs(Path(named)) and not (output / named / MANIFEST).is_file():
            raise UsageError(f"{named} is not a run", hint=_ACCEPTED)
    run = RunDirectory.open(find_run(named, output))
    tell_missing_shards(run)
    return run


def tell_missing_shards(run: RunDirectory) -> None:
    if missing := missing_shards(shard.manifest for shard in run.shards):
        is_known = any(shard.manifest.selection for shard in run.shards)
        rest = "their instances count as incomplete" if is_known else "their instances are not known, and not counted"
        console.say(f"evalkit: {run.path}: not started: shard {first_few(missing)}; {rest}")


def summarize(
    directories: Sequence[AnyRun],
    by: Sequence[str] = (),
    cluster: str | None = None,
    bad: Collection[str] | None = None,
) -> dict[str, Any]:
    """Summarise one or more runs. Rows that cannot be counted are named in the document and on standard error."""
    unreadable: list[Unreadable] = []
    counted = tally(directories, unreadable)
    unknown = sorted(counted.unknown_ids)
    are_ours = any(isinstance(each, RunDirectory) for each in directories)
    return counted.summary(by=by, cluster=cluster, bad=bad, audit=find_audit(directories)) | {
        **({} if are_ours else {"resumable": 0}),
        "unreadable": [{"file": each.file, "line": each.line, "reason": each.reason} for each in unreadable],
        "unknown_ids": unknown,
    }


def describe_run(directory: RunDirectory) -> dict[str, Any]:
    """The document of a run. What was graded only can be resumed only where it has an answer."""
    document = {"run": str(directory.path), **summarize([directory])}
    if directory.manifest.config["agent"]["name"] == RECORDED:
        answered = {name for name, _ in find_answers(directory)}
        document["resumable"] -= sum(name not in answered for name in document["ids"]["incomplete"])
    return document


def find_audit(directories: Sequence[AnyRun]) -> Audit | None:
    """What `evalkit audit` has found in these runs; None where it has seen none of them."""
    records = [read_audit(run.path) for run in directories if isinstance(run, RunDirectory)]
    known = [record for record in records if record is not None]
    if not known:
        return None
    by_rule = sum((Counter(record.by_rule) for record in known), Counter[str]())
    flagged = frozenset(name for record in known for name in record.flagged)
    return Audit(sum(record.attempts for record in known), flagged, by_rule)


def tally(directories: Sequence[AnyRun], unreadable: list[Unreadable] | None = None) -> Tally:
    """Count all rows of these runs. Those that cannot be counted are named on standard error, and added to the list."""
    counted = Tally([facts_of(directory) for directory in directories])
    refused = [] if unreadable is None else unreadable
    for index, directory in enumerate(directories):
        for batch in directory.batches():
            rows = [row for row in batch if not isinstance(row, Unreadable)]
            counted.add(rows, index)
            if len(rows) < len(batch):
                refused += [row for row in batch if isinstance(row, Unreadable)]
    tell_unreadable(refused)
    for name in sorted(counted.unknown_ids):
        console.say(f"evalkit: results of {name!r} are not counted: no run has this instance")
    return counted


def tell_unreadable(lines: Sequence[Unreadable]) -> None:
    """Name lines on standard error. Of many that are alike, the first is named, and the others are counted."""
    alike: dict[tuple[str, str], list[Unreadable]] = {}
    for each in lines:
        alike.setdefault((each.file, each.reason), []).append(each)
    for group in alike.values():
        named, others = (group, 0) if len(group) <= _MOST_ALIKE else (group[:1], len(group) - 1)
        more = f"; and {others} other lines likewise" if others else ""
        for each in named:
            console.say(f"evalkit: {each.file}:{each.line}: not a result: {each.reason}{more}")


def readable(rows: Iterable[Row | Unreadable]) -> Iterator[Row]:
    """The rows. Lines that cannot be read are named on standard error."""
    for row in rows:
        if isinstance(row, Unreadable):
            console.say(f"evalkit: {row.file}:{row.line}: not a result: {row.reason}")
        else:
            yield row


def exit_code(document: Mapping[str, Any]) -> ExitCode:
    """The exit code that follows from a summary."""
    unfinished = document["buckets"]["error"] + document["buckets"]["incomplete"]
    return ExitCode.INCOMPLETE if unfinished else ExitCode.DONE


def facts_of(directory: AnyRun) -> RunFacts:
    if not isinstance(directory, RunDirectory):
        return directory.facts
    manifest = directory.manifest
    config = manifest.config
    named = (config.get("benchmark", {}).get("name"), config["agent"]["name"], config["model"]["name"])
    return RunFacts(
        str(directory.path),
        manifest.instance_ids,
        attempts_of(config),
        manifest.fields,
        measured=manifest.measured,
        label=" ".join(str(part) for part in named if part),
    )


def group_repeats(directories: Sequence[AnyRun]) -> list[list[AnyRun]]:
    """Group the runs that measure the same; each other run is a group of its own."""
    groups: dict[str, list[AnyRun]] = {}
    for directory in directories:
        groups.setdefault(facts_of(directory).measured or str(directory.path), []).append(directory)
    return list(groups.values())


def attempts_of(config: Mapping[str, Any]) -> Attempts:
    """The number of attempts, and when to stop, by a recorded config."""
    return Attempts(config["run"]["attempts"], config["run"]["stop_on"])


def require_fields(directories: Sequence[AnyRun], option: str, names: Sequence[str]) -> None:
    """Refuse a field that no instance has."""
    known = {name for directory in directories for name in facts_of(directory).fields}
    for name in names:
        if name not in known:
            raise UsageError(
                f"{option} {name}: the instances have no such field",
                hint=f"they have: {', '.join(sorted(known)) or 'none'}",
            )
