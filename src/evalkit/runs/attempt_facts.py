"""Gathers everything on disk about one attempt into one document."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from io import BytesIO
from itertools import takewhile
from pathlib import Path
from typing import Any

from msgspec import to_builtins

from evalkit.agents.builtin import RECORDED
from evalkit.config import Config
from evalkit.domain.failing_tests import find_failing, find_failing_in_ctrf, find_refusal
from evalkit.domain.failures import policy_of
from evalkit.domain.json_values import count_of, mapping_of, number_or_none, parse_leniently, text_or_none
from evalkit.domain.patch_counts import count_patch
from evalkit.domain.planning import replaces
from evalkit.domain.results import SCHEMA, Failure, Row
from evalkit.errors import UsageError
from evalkit.store.manifest import look_up
from evalkit.store.run_directory import RunDirectory
from evalkit.system.files import is_within

OUTPUT, AGENT_LOG = "test_output.txt", "agent.log"
_REPORTS = ("report.json", "verifier/ctrf.json")
_LARGEST_REPORT = 64 << 20
_LARGEST_PATCH = 64 << 20
_LOG_RECORD = re.compile(r"\d{4}-\d\d-\d\d [\d:,]+ (WARNING|ERROR) ")
_TAIL_BYTES = 1 << 16
_TAIL_LINES = 20
# These choose instances or set the load, so they do not matter for repeating a single attempt.
_NOT_REPEATED = ("benchmark.select", "benchmark.limit", "benchmark.seed", "benchmark.shard", "run.workers")
_NO_TESTS: Mapping[str, Any] = {"failing": {}, "refused": None, "rewards": {}, "output": None}

Rows = Mapping[int, tuple[Row, Mapping[str, Any]]]


def describe_attempt(
    run: RunDirectory, instance_id: str, wanted: int | None, flags: Mapping[str, str]
) -> dict[str, Any]:
    """Describe one attempt, by default the last one started. `flags` maps config keys to their command-line options."""
    rows = find_rows(run.whole_rows(instance_id))
    return describe_by_rows(run, instance_id, _choose(run, instance_id, rows, wanted), rows, flags)


def describe_by_rows(
    run: RunDirectory, instance_id: str, number: int, rows: Rows, flags: Mapping[str, str]
) -> dict[str, Any]:
    """Like `describe_attempt`, for rows of the instance that are known already."""
    folder = run.attempt_folder(instance_id, number)
    if not is_within(run.path, folder):
        folder = run.path / "no-such-folder"  # nothing is read of a folder elsewhere
    row, line = rows.get(number, (None, {}))
    return {
        "schema": SCHEMA,
        "run": str(run.path),
        "instance_id": instance_id,
        "attempt": number,
        "attempts": list_attempts({each: row for each, (row, _) in rows.items()}),
        "state": _state(run, row, folder),
        **_describe_row(row, line),
        **_describe_tests(folder, instance_id, row),
        "patch": _describe_patch(run, row),
        "folder": str(folder),
        "files": list(_list_files(folder)),
        "again": again(run.manifest.config, str(run.path), instance_id, flags),
    }


def describe_foreign(
    run: Path, row: Row, others: Mapping[int, Row], patch: bytes, folder: Path | None
) -> dict[str, Any]:
    """The same document about an attempt in a run of another tool: what is not known is null."""
    counts = count_patch(BytesIO(patch)) if patch and len(patch) <= _LARGEST_PATCH else None
    return {
        "schema": SCHEMA,
        "run": str(run),
        "instance_id": row.instance_id,
        "attempt": row.attempt,
        "attempts": list_attempts(others),
        "state": "finished",
        **_describe_row(row, {}, is_ours=False),
        "seconds": row.seconds or None,
        **(_NO_TESTS if folder is None else _describe_tests(folder, row.instance_id, row)),
        "patch": row.patch
        and {
            "path": None,
            "bytes": row.patch.bytes,
            "sha256": row.patch.sha256,
            "files": counts and counts.files,
            "added": counts and counts.added,
            "removed": counts and counts.removed,
        },
        "folder": folder and str(folder),
        "files": [] if folder is None else list(_list_files(folder)),
        "again": None,
    }


def list_attempts(rows: Mapping[int, Row]) -> list[dict[str, Any]]:
    return [{"attempt": each, "outcome": rows[each].outcome, "verdict": rows[each].verdict} for each in sorted(rows)]


def find_rows(whole_rows: Iterable[tuple[Row, Mapping[str, Any]]]) -> Rows:
    """The rows that stand, by the number of the attempt."""
    rows: dict[int, tuple[Row, Mapping[str, Any]]] = {}
    for row, line in whole_rows:
        if replaces(row, rows[row.attempt][0] if row.attempt in rows else None):
            rows[row.attempt] = row, line
    return rows


def last_begun(run: RunDirectory, instance_id: str, rows: Rows) -> int:
    """The number of the last attempt that has begun. It may have no row yet."""
    latest = max(rows, default=1)
    while run.attempt_folder(instance_id, latest + 1).is_dir():
        latest += 1
    return latest


def _choose(run: RunDirectory, instance_id: str, rows: Rows, wanted: int | None) -> int:
    latest = last_begun(run, instance_id, rows)
    if wanted is None:
        return latest
    if wanted not in rows and not run.attempt_folder(instance_id, wanted).is_dir():
        raise UsageError(f"{run.path} has no attempt {wanted} at {instance_id}", hint=f"the last one is {latest}")
    return wanted


def _state(run: RunDirectory, row: Row | None, folder: Path) -> str:
    if row is not None:
        return "finished"
    if not folder.is_dir():
        return "not_run"
    return "running" if run.is_running else "not_finished"


def _describe_row(row: Row | None, line: Mapping[str, Any], *, is_ours: bool = True) -> dict[str, Any]:
    stages = {name: number_or_none(value) for name, value in mapping_of(line.get("stages")).items()}
    return {
        "outcome": row and row.outcome,
        "verdict": row and row.verdict,
        "score": row and row.score,
        "failure": _describe_failure(row.failure, is_ours=is_ours) if row and row.failure else None,
        "suspicious": list(row.suspicious) if row else [],
        "note": text_or_none(line.get("note")),
        "metrics": dict(row.metrics) if row else {},
        "usage": to_builtins(row.usage) if row else None,
        "resources": to_builtins(row.resources) if row and row.resources else None,
        "seconds": row and row.seconds,
        "stages": {name: value for name, value in stages.items() if value is not None},
        "started_at": text_or_none(line.get("started_at")),
        "finished_at": text_or_none(line.get("finished_at")),
        "retries": count_of(line.get("retries")),
        "resource_factor": count_of(line.get("resource_factor")) or 1,
        "host": text_or_none(line.get("host")),
    }


def _describe_failure(failure: Failure, *, is_ours: bool) -> dict[str, Any]:
    """What failed. The advice is for runs that evalkit has made."""
    policy = policy_of(failure.kind)
    return {
        "kind": failure.kind,
        "message": failure.message,
        "stage": failure.stage,
        "fault": policy and policy.fault,
        "counts_against_agent": policy and policy.counts_against_agent,
        "hint": policy.hint if policy and is_ours else "",
    }


def _describe_tests(folder: Path, instance_id: str, row: Row | None) -> dict[str, Any]:
    """The failing tests where a report names them, else the last lines of output."""
    report, ctrf = (_read_report(folder / name) for name in _REPORTS)
    failing = find_failing(report, instance_id)
    if named := find_failing_in_ctrf(ctrf):
        failing["tests"] = named
    is_resolved = row is not None and row.verdict == "resolved"
    return {
        "failing": failing,
        "refused": find_refusal(report, instance_id),
        "rewards": mapping_of(mapping_of(report).get("rewards")),
        "output": None if failing or is_resolved else _last_output(folder),
    }


def _read_report(path: Path) -> Any:
    with suppress(OSError, ValueError):
        if path.is_file() and path.stat().st_size <= _LARGEST_REPORT:
            return parse_leniently(path.read_bytes())
    return None


def _last_output(folder: Path) -> dict[str, Any] | None:
    for name in (OUTPUT, AGENT_LOG):
        if (folder / name).is_symlink():  # it may lead anywhere on this machine
            continue
        with suppress(OSError), (folder / name).open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            lines = list(takewhile(_is_printed, file.read().decode("utf-8", "replace").splitlines()))
            if lines:
                return {"path": str(folder / name), "lines": lines[-_TAIL_LINES:]}
    return None


def _is_printed(line: str) -> bool:
    """False for evalkit's own log records, which follow the output of the agent."""
    return _LOG_RECORD.match(line) is None


def _describe_patch(run: RunDirectory, row: Row | None) -> dict[str, Any] | None:
    if row is None or row.patch is None:
        return None
    path = run.find_patch(row.patch)
    document: dict[str, Any] = {"path": str(path), "bytes": row.patch.bytes, "sha256": row.patch.sha256}
    counts = None
    with suppress(OSError):
        if path.stat().st_size <= _LARGEST_PATCH:
            with path.open("rb") as file:
                counts = count_patch(file)
    return document | {
        "files": counts and counts.files,
        "added": counts and counts.added,
        "removed": counts and counts.removed,
    }


def _list_files(folder: Path) -> Iterator[dict[str, Any]]:
    """The entries of a folder; a subfolder has the total size of its files."""
    with suppress(OSError):
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            with suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    sizes = [path.lstat().st_size for path in Path(entry.path).rglob("*") if path.is_file()]
                    yield {"name": f"{entry.name}/", "bytes": sum(sizes), "files": len(sizes)}
                else:
                    yield {"name": entry.name, "bytes": entry.stat(follow_symlinks=False).st_size, "files": 1}


def again(config: Mapping[str, Mapping[str, Any]], run: str, instance_id: str, flags: Mapping[str, str]) -> str:
    """The command that repeats one instance with the same config in a new run."""
    if look_up(config, "agent.name") == RECORDED:
        return shlex.join(["evalkit", "grade", run, "--select", instance_id, "--force"])
    words = ["evalkit", "infer", "--select", instance_id]
    defaults = _list_defaults()
    for section, entries in config.items():
        for name, value in entries.items():
            key = f"{section}.{name}"
            is_known = name in defaults.get(section, {})
            if is_known and key not in _NOT_REPEATED and value != defaults[section][name]:
                words += [flags[key], _text(value)] if key in flags else ["--set", f"{key}={_text(value)}"]
    return shlex.join(words)


@cache
def _list_defaults() -> Mapping[str, Mapping[str, Any]]:
    return Config().model_dump(mode="json")


def _text(value: Any) -> str:
    """A value in the form `--set` takes: lists and tables as TOML."""
    match value:
        case str():
            return value
        case list() | dict():
            return _toml(value)
        case None:
            return "none"
    return json.dumps(value)


def _toml(value: Any) -> str:
    match value:
        case dict():
            told = {name: each for name, each in value.items() if each is not None}  # TOML has no null
            return "{" + ", ".join(f"{json.dumps(name)} = {_toml(each)}" for name, each in told.items()) + "}"
        case list():
            return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)
