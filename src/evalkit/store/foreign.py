"""Runs of other tools, read like our own.

Here are OpenHands, mini-swe-agent, SWE-bench predictions, logs and reports; Harbor and Inspect have a module each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import msgspec

from evalkit.domain.json_values import (
    count_of,
    list_of,
    mapping_of,
    number_or_none,
    parse_leniently,
    text_of,
    texts_of,
)
from evalkit.domain.results import MOST_ATTEMPTS, UNKNOWN_USAGE, Failure, Outcome, Patch, Row, Usage, Verdict
from evalkit.domain.token_counts import read_tokens
from evalkit.errors import UsageError
from evalkit.logs import logger
from evalkit.store import harbor_jobs, inspect_logs
from evalkit.store.foreign_run import Entry, ForeignRun
from evalkit.store.harness_logs import LOG, OWN_LOG, PATCH, REPORT, refuse_old_layout
from evalkit.store.prediction_file import encode, read_predictions
from evalkit.store.rows import Unreadable


def open_foreign(path: Path) -> ForeignRun | None:
    """Open the run of another tool, recognised by its files; None if there is none."""
    if path.is_dir():
        return _open_folder(path)
    if path.suffix == inspect_logs.SUFFIX and path.is_file():
        return inspect_logs.read_archive(path)
    return _open_file(path) if path.is_file() and path.suffix in (".json", ".jsonl") else None


def _open_folder(path: Path) -> ForeignRun | None:
    if (path / "output.jsonl").is_file():
        return _read_openhands(path / "output.jsonl")
    for name in ("preds.json", "all_preds.jsonl"):
        if (path / name).is_file():
            return _read_predictions(path / name, path)
    if harbor_jobs.is_job(path):
        return harbor_jobs.read_job(path)
    refuse_old_layout(path)
    for depth in ("*/", "*/*/"):
        if any(any(path.glob(depth + name)) for name in (REPORT, LOG, OWN_LOG)):
            return _read_logs(path, sorted(path.glob(depth)))
    return inspect_logs.read_folder(path) or _read_log_in(path)


def _read_log_in(path: Path) -> ForeignRun | None:
    """The log in a folder, where Inspect has written it as JSON."""
    logs = sorted(path.glob("*.json"))
    document = _read_document(logs[0]) if logs else {}
    if not inspect_logs.is_log(document):
        return None
    inspect_logs.require_one(path, logs)
    return inspect_logs.read_log(logs[0], document)


def _open_file(path: Path) -> ForeignRun:
    if path.suffix == ".json":
        document = _read_document(path)
        if isinstance(document.get("resolved_ids"), list):
            return _read_report(path, document)
        if inspect_logs.is_log(document):
            return inspect_logs.read_log(path, document)
    if path.suffix == ".jsonl" and _is_openhands(path):
        return _read_openhands(path)
    return _read_predictions(path, path.parent)


class _OpenHandsRow(msgspec.Struct):
    """The fields that are read of a row; histories of many megabytes are skipped by the parser."""

    instance_id: str
    test_result: dict[str, Any] | None
    attempt: Annotated[int, msgspec.Meta(le=MOST_ATTEMPTS)] | None = None
    error: str | None = None
    metrics: dict[str, Any] | None = None


_decode_quickly = msgspec.json.Decoder(_OpenHandsRow).decode


def _decode_openhands(line: bytes) -> _OpenHandsRow:
    try:
        return _decode_quickly(line)
    except (ValueError, RecursionError):
        # Patches may hold lone surrogates, which msgspec refuses.
        return msgspec.convert(parse_leniently(line), _OpenHandsRow)


def _is_openhands(path: Path) -> bool:
    with path.open("rb") as file:
        first = next((line for line in file if line.strip()), b"")
    try:
        _decode_openhands(first)
    except ValueError:
        return False
    return True


def _read_openhands(path: Path) -> ForeignRun:
    entries: list[Entry] = []
    unreadable: list[Unreadable] = []
    verdicts = _read_verdicts(path.with_name(f"{path.stem}.report.json"))
    with path.open("rb") as file:
        number = offset = 0
        for line in file:
            number, start, offset = number + 1, offset, offset + len(line)
            if not line.strip():
                continue
            try:
                found = _decode_openhands(line)
            except ValueError as error:
                unreadable.append(Unreadable(str(path), number, str(error)))
                continue
            row = _row_of_openhands(found, verdicts)
            entries.append(Entry(row, partial(_patch_at, path, start), read_row=partial(_row_at, path, start)))
    return ForeignRun(path, "OpenHands", entries, unreadable, tool="openhands")


def _patch_at(path: Path, offset: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return _openhands_patch(_decode_openhands(file.readline()))


def _row_at(path: Path, offset: int) -> Mapping[str, Any]:
    with path.open("rb") as file:
        file.seek(offset)
        return mapping_of(parse_leniently(file.readline()))


def _openhands_patch(row: _OpenHandsRow) -> bytes:
    result = row.test_result or {}
    patch = result.get("git_patch") or result.get("git_patch_captured_on_error")
    return encode(patch) if isinstance(patch, str) else b""


def _row_of_openhands(found: _OpenHandsRow, verdicts: Mapping[str, Verdict]) -> Row:
    result = found.test_result or {}
    patch = _openhands_patch(found)
    score = None if found.error else _score_of(result)
    verdict: Verdict = verdicts.get(found.instance_id, "ungraded")
    if verdict == "ungraded" and score is not None:
        verdict = "resolved" if score >= 1.0 else "unresolved"
    outcome: Outcome = "submitted" if patch or verdict != "ungraded" or "git_patch" not in result else "empty"
    return Row(
        instance_id=found.instance_id,
        attempt=max(1, found.attempt or 1),
        outcome="error" if found.error else outcome,
        verdict="ungraded" if found.error else verdict,
        score=score,
        failure=Failure(kind="agent", stage="solve", message=found.error) if found.error else None,
        patch=_describe(patch),
        usage=_openhands_usage(found.metrics),
        accepted=not found.error,
    )


def _score_of(result: Mapping[str, Any]) -> float | None:
    """The score, which some benchmarks of OpenHands put into the row."""
    score, final = result.get("score"), result.get("final_score")
    if isinstance(score, bool):
        return float(score)
    if (number := number_or_none(score)) is not None:
        return float(number)
    reached, total = (number_or_none(mapping_of(final).get(key)) for key in ("result", "total"))
    return None if reached is None or not total else number_or_none(reached / total)


def _openhands_usage(metrics: Mapping[str, Any] | None) -> Usage:
    if not metrics:
        return UNKNOWN_USAGE
    tokens = mapping_of(metrics.get("accumulated_token_usage"))
    return Usage(
        llm_calls=len(list_of(metrics.get("costs")) or list_of(metrics.get("token_usages"))),
        input_tokens=count_of(tokens.get("prompt_tokens")),
        cached_tokens=count_of(tokens.get("cache_read_tokens")),
        output_tokens=count_of(tokens.get("completion_tokens")),
        cache_write_tokens=count_of(tokens.get("cache_write_tokens")),
        reasoning_tokens=count_of(tokens.get("reasoning_tokens")),
        cost_usd=number_or_none(metrics.get("accumulated_cost")),
    )


class _Stats(msgspec.Struct):
    instance_cost: float | None = None
    api_calls: int = 0


class _Info(msgspec.Struct):
    exit_status: str | None = None
    model_stats: _Stats = msgspec.field(default_factory=_Stats)


class _Trajectory(msgspec.Struct):
    info: _Info = msgspec.field(default_factory=_Info)
    messages: msgspec.Raw = msgspec.Raw(b"[]")


def _tokens_of_mini(messages: msgspec.Raw) -> dict[str, int]:
    """The tokens of all answers, as the endpoint told them; nothing where the messages are of another shape."""
    try:
        said = list_of(parse_leniently(bytes(messages)))
    except ValueError:
        return {}
    total = read_tokens(None)
    for message in said:
        told = mapping_of(mapping_of(mapping_of(message).get("extra")).get("response")).get("usage")
        total = {name: total[name] + tokens for name, tokens in read_tokens(told).items()}
    return total


def _read_predictions(path: Path, folder: Path) -> ForeignRun:
    """Read predictions, with details from mini-swe-agent's trajectories beside them."""
    predictions = read_predictions(path)
    entries: list[Entry] = []
    unreadable: list[Unreadable] = []
    for name, prediction in predictions.items():
        trajectory = _trajectory_of(folder, name)
        known = _Trajectory()
        if trajectory is not None:
            try:
                known = msgspec.json.decode(trajectory.read_bytes(), type=_Trajectory)
            except (ValueError, RecursionError, OSError) as error:
                unreadable.append(Unreadable(str(trajectory), 1, str(error)))
        row = _row_of_prediction(name, prediction.patch, known)
        place = folder / name if Path(name).name == name else None
        entries.append(Entry(row, partial(bytes, prediction.patch), place))
    models = sorted({each.model for each in predictions.values() if each.model})
    tool = "mini-swe-agent" if any(_trajectory_of(folder, name) for name in predictions) else "predictions"
    return ForeignRun(path, " + ".join(models) or path.stem, entries, unreadable, tool=tool)


def _trajectory_of(folder: Path, name: str) -> Path | None:
    path = folder / name / f"{name}.traj.json"
    return path if Path(name).name == name and path.is_file() else None


def _row_of_prediction(name: str, patch: bytes, known: _Trajectory) -> Row:
    info = known.info
    crashed = not patch.strip() and (info.exit_status or "").endswith(("Error", "Exception"))
    return Row(
        instance_id=name,
        attempt=1,
        outcome="error" if crashed else "submitted" if patch.strip() else "empty",
        verdict="ungraded",
        failure=Failure(kind="agent", stage="solve", message=info.exit_status or "") if crashed else None,
        patch=_describe(patch),
        usage=Usage(
            llm_calls=count_of(info.model_stats.api_calls),
            cost_usd=number_or_none(info.model_stats.instance_cost),
            **_tokens_of_mini(known.messages),
        ),
        accepted=not crashed,
    )


def _read_logs(path: Path, folders: Sequence[Path]) -> ForeignRun:
    """Read logs of the SWE-bench harness, with its recorded verdicts."""
    entries: list[Entry] = []
    unreadable: list[Unreadable] = []
    for folder in folders:
        report = folder / REPORT
        # If a patch does not apply, or the engine fails, the harness leaves its own log and no report.
        if not any((folder / name).is_file() for name in (REPORT, LOG, OWN_LOG, PATCH)):
            continue
        resolved: bool | None = None
        reason = f"{folder} has no {REPORT}"
        if report.is_file():
            try:
                resolved = bool(parse_leniently(report.read_bytes())[folder.name]["resolved"])
            except (OSError, ValueError, KeyError, TypeError) as error:
                reason = f"{report} is not a report: {error!r}"
                unreadable.append(Unreadable(str(report), 1, repr(error)))
        entries.append(Entry(_row_of_log(folder, resolved, reason), partial(_read_or_nothing, folder / PATCH), folder))
    logger.warning("%s: logs have no trace of instances without a prediction or with an empty one", path)
    label = " + ".join(sorted({folder.parent.name for folder in folders})) or path.name
    return ForeignRun(path, label, entries, unreadable, tool="swebench")


def _row_of_log(folder: Path, resolved: bool | None, reason: str) -> Row:
    verdict: Verdict = "ungraded" if resolved is None else "resolved" if resolved else "unresolved"
    failure = Failure(kind="grader", stage="grade", message=reason)
    return Row(
        instance_id=folder.name,
        attempt=1,
        outcome="error" if resolved is None else "submitted",
        verdict=verdict,
        score=None if resolved is None else float(resolved),
        failure=failure if resolved is None else None,
        patch=_describe(_read_or_nothing(folder / PATCH)),
        usage=UNKNOWN_USAGE,
        accepted=resolved is not None,
    )


def _read_document(path: Path) -> Mapping[str, Any]:
    """The object in a file; empty where there is none."""
    try:
        return mapping_of(parse_leniently(path.read_bytes()))
    except (OSError, ValueError):
        return {}


_STATES: dict[str, tuple[Outcome, Verdict]] = {
    "resolved_ids": ("submitted", "resolved"),
    "unresolved_ids": ("submitted", "unresolved"),
    "empty_patch_ids": ("empty", "ungraded"),
    "error_ids": ("error", "ungraded"),
}


def _read_report(path: Path, report: Mapping[str, Any]) -> ForeignRun:
    """Read the report of a whole run. Instances without a prediction were not run, and are left out."""
    entries: dict[str, Entry] = {}
    for key, (outcome, verdict) in _STATES.items():
        for name in list_of(report.get(key)):
            failure = Failure(kind="grader", stage="grade") if outcome == "error" else None
            row = Row(
                instance_id=text_of(name),
                attempt=1,
                outcome=outcome,
                verdict=verdict,
                failure=failure,
                accepted=failure is None,
            )
            entries.setdefault(row.instance_id, Entry(row, bytes))
    return ForeignRun(path, path.stem, list(entries.values()), tool="swebench")


def _read_verdicts(path: Path) -> dict[str, Verdict]:
    report = _read_document(path)
    verdicts: dict[str, Verdict] = dict.fromkeys(texts_of(report.get("unresolved_ids")), "unresolved")
    return verdicts | dict.fromkeys(texts_of(report.get("resolved_ids")), "resolved")


def _describe(patch: bytes) -> Patch | None:
    return Patch(bytes=len(patch), sha256=hashlib.sha256(patch).hexdigest()) if patch else None


def _read_or_nothing(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
