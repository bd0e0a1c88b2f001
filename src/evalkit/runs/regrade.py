"""Answers that are there already: where they come from, which need grading, and what recorded logs say of them."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from shutil import copyfile
from typing import Any

from msgspec import structs

from evalkit.agents.builtin import RECORDED
from evalkit.benchmarks.swebench.official_report import Judged, State, classify, make_report, was_cut_short
from evalkit.config import Config
from evalkit.domain.failures import Failed
from evalkit.domain.outputs import TooLarge
from evalkit.domain.planning import Standing, Step
from evalkit.domain.protocols import LogJudge, Observer
from evalkit.domain.records import Answer, Failure, Grade, Instance, Patch, Recorded, Result, Usage, grade_key
from evalkit.domain.rows import Row, timestamp
from evalkit.errors import EvalkitError, UsageError
from evalkit.runs.execute import Parts
from evalkit.runs.identity import make_manifest
from evalkit.settings import Settings
from evalkit.store.harness_logs import LOG, PATCH, RecordedLogs, is_of
from evalkit.store.manifest import write_atomically
from evalkit.store.prediction_file import Prediction
from evalkit.store.run_directory import RunDirectory

Answers = dict[tuple[str, int], Recorded]
UNKNOWN = Usage(cost_usd=None)


def import_predictions(
    path: Path, settings: Settings, instances: Mapping[str, Instance], predictions: Mapping[str, Prediction]
) -> RunDirectory:
    """A run directory of answers that were made elsewhere, none of them graded yet."""

    def fill(run: RunDirectory) -> None:
        for name, prediction in predictions.items():
            for attempt in range(1, settings.config.run.attempts + 1) if name in instances else ():
                (run.fresh_attempt_folder(name, attempt) / PATCH).write_bytes(prediction.patch)

    return RunDirectory.create(path, make_manifest(path.name, settings, instances), fill)


def find_answers(directory: RunDirectory) -> Answers:
    """The stored answers of a run: those that its rows name, and those that were imported."""
    answers: Answers = {}
    if directory.manifest.config["agent"]["name"] == RECORDED:
        answers = dict(_imported(directory))
    seen: dict[tuple[str, int], Row] = {}
    known = set(directory.manifest.instance_ids)
    for row in directory.rows():
        if not isinstance(row, Row) or row.patch is None or row.instance_id not in known:
            continue
        key = (row.instance_id, row.attempt)
        if key not in seen or row.outcome != "error" or seen[key].outcome == "error":
            seen[key] = row
    for key, row in seen.items():
        assert row.patch is not None
        path = str(directory.find_patch(row.patch).relative_to(directory.path)) if row.patch.path else ""
        patch = Patch(sha256=row.patch.sha256, bytes=row.patch.bytes, path=path)
        answer = Answer(patch=patch, empty=patch.bytes == 0)
        answers[key] = Recorded(answer=answer, timed_out=row.outcome == "timeout")
    return answers


def _imported(directory: RunDirectory) -> Iterator[tuple[tuple[str, int], Recorded]]:
    for name in directory.manifest.instance_ids:
        for attempt in range(1, directory.manifest.config["run"]["attempts"] + 1):
            path = directory.attempt_folder(name, attempt) / PATCH
            if not path.is_file():
                break
            content = path.read_bytes()
            patch = Patch(
                sha256=hashlib.sha256(content).hexdigest(),
                bytes=len(content),
                path=str(path.relative_to(directory.path)),
            )
            yield (name, attempt), Recorded(answer=Answer(patch=patch, empty=not content.strip()), usage=UNKNOWN)


def plan_grading(
    directory: RunDirectory, answers: Answers, instances: Mapping[str, Instance], version: str, *, force: bool
) -> list[Step]:
    """The answers to grade: those without a verdict of this very grader on this very patch and instance."""
    graded: dict[tuple[str, int], str | None] = {}
    for row in directory.rows():
        if isinstance(row, Row) and (row.verdict != "ungraded" or row.outcome == "empty"):
            graded[row.instance_id, row.attempt] = row.grade_key
    steps = []
    for (name, attempt), recorded in answers.items():
        if name not in instances:
            continue
        is_done = (name, attempt) in graded and (
            recorded.answer.empty or graded[name, attempt] == grade_key(recorded.answer, instances[name], version)
        )
        if force or not is_done:
            steps.append(Step(name, attempt))
    return steps


@dataclass(frozen=True, slots=True)
class LogGrading:
    """Judges recorded logs, without a workspace."""

    directory: RunDirectory
    parts: Parts
    logs: RecordedLogs
    observer: Observer
    models: Mapping[str, str] = field(default_factory=dict)

    def execute(self, instances: Mapping[str, Instance], steps: Sequence[Step], answers: Answers) -> None:
        for step in steps:
            result = self._judge(instances[step.instance_id], step, answers[step.instance_id, step.attempt])
            accepted = result.failure is None and bool(self.parts.critic(result))
            result = structs.replace(result, accepted=accepted)
            self.directory.append([result])
            self.observer.finished(result)

    def _judge(self, instance: Instance, step: Step, recorded: Recorded) -> Result:
        began, started_at = time.monotonic(), timestamp()
        folder = self.directory.attempt_folder(instance.id, step.attempt)
        grade, failure = Grade(verdict="ungraded"), None
        try:
            if not recorded.answer.empty:
                grade = self._judge_log(instance, recorded, folder)
        except (Failed, TooLarge, OSError) as error:
            kind = error.kind if isinstance(error, Failed) else "grader"
            failure = Failure(kind=kind, message=str(error), stage="grade")
        seconds = round(time.monotonic() - began, 3)
        is_graded = grade.verdict != "ungraded"
        return Result(
            instance_id=instance.id,
            attempt=step.attempt,
            outcome=_outcome(recorded, failure),
            verdict=grade.verdict,
            score=grade.score,
            failure=failure,
            patch=recorded.answer.patch,
            usage=recorded.usage,
            started_at=started_at,
            finished_at=timestamp(),
            seconds=seconds,
            stages={"grade": seconds},
            retries=0,
            resource_factor=1,
            artifacts=self.directory.artifacts(instance.id, step.attempt),
            grade_key=grade_key(recorded.answer, instance, self.parts.benchmark.grader_version) if is_graded else None,
        )

    def _judge_log(self, instance: Instance, recorded: Recorded, folder: Path) -> Grade:
        assert isinstance(self.parts.benchmark, LogJudge)
        assert recorded.answer.patch is not None
        found = self.logs.find(instance.id, self.models.get(instance.id, ""))
        if found is None or not (found / LOG).is_file():
            raise Failed("grader", f"{found or self.logs.root} has no {LOG} of {instance.id}")
        if not is_of(found, (self.directory.path / recorded.answer.patch.path).read_bytes()):
            raise Failed("grader", f"the log in {found} is of another patch")
        folder.mkdir(parents=True, exist_ok=True)
        copyfile(found / LOG, folder / LOG)
        return self.parts.benchmark.judge_log(instance, folder)


def _outcome(recorded: Recorded, failure: Failure | None) -> Any:
    if failure is not None:
        return "error"
    if recorded.timed_out:
        return "timeout"
    return "empty" if recorded.answer.empty else "submitted"


def require_log_judge(parts: Parts, config: Config) -> None:
    if not isinstance(parts.benchmark, LogJudge):
        raise UsageError(f"benchmark {config.benchmark.name!r} cannot judge recorded logs", hint="grade without --logs")


def write_report(directory: RunDirectory, target: Path) -> None:
    document = json.dumps(_official_report(directory), indent=4)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, document.encode() + b"\n")
    except OSError as error:
        raise EvalkitError(f"cannot write the report {target}: {error.strerror}") from error


def _official_report(directory: RunDirectory) -> dict[str, Any]:
    """The run as the report of the official harness."""
    ledger = directory.ledger()
    empty = {name for (name, _), recorded in find_answers(directory).items() if recorded.answer.empty}
    return make_report(
        {
            name: _judged(directory, name, standing, is_empty=name in empty)
            for name, standing in ledger.standings.items()
        }
    )


def _judged(directory: RunDirectory, name: str, standing: Standing, *, is_empty: bool) -> Judged:
    states: dict[str, State] = {"resolved": "resolved", "unresolved": "unresolved", "incomplete": "incomplete"}
    state = states.get(standing.bucket, "empty_patch" if is_empty or standing.bucket == "empty" else "error")
    if state not in ("unresolved", "error"):
        return Judged(state)
    log = directory.attempt_folder(name, max(standing.marks)) / LOG
    reason, tier = classify(log)
    return Judged("error" if was_cut_short(log) else state, reason, tier)


def find_bad(directory: RunDirectory) -> dict[str, list[str]]:
    """The instances whose reference solution does not resolve them, or not each time."""
    standings = directory.ledger().standings
    resolved = {name: [mark.bucket == "resolved" for mark in each.marks.values()] for name, each in standings.items()}
    return {
        "failing": [name for name, each in resolved.items() if each and not any(each)],
        "flaky": [name for name, each in resolved.items() if any(each) and not all(each)],
    }
