"""GAIA: questions with one short answer. The rows are gated and come from the hub with the user's own token."""

from __future__ import annotations

import json
import re
import string
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit.benchmarks.datasets import DatasetRow, read_rows
from evalkit.config import Config
from evalkit.domain import outputs
from evalkit.domain.failures import Failed
from evalkit.domain.protocols import Workspace
from evalkit.domain.records import Answer, Grade, Instance, Job
from evalkit.errors import DatasetError

DATASET = "gaia-benchmark/GAIA"
ANSWER = "answer.txt"
_TRUTH = "Final answer"
_HIDDEN = ("", "?")
_ANSWER_FORMS = re.compile(
    r"<solution>(.*?)</solution>|^[\s*_#>]*FINAL ANSWER[*_]*:[*_]*\s*(?!\s*<solution>)(.+?)[*_\s]*$",
    re.DOTALL | re.IGNORECASE | re.MULTILINE,
)
_ASK = (
    "{question}\n\n{attachment}Give your final answer between <solution> and </solution>: a number, as few words as"
    " possible, or a list of these with commas between. Do not use a thousands separator, nor units such as $ or %"
    " unless the question asks for them; no articles or abbreviations in words."
)
_ATTACHMENT = "The file {name} in your working directory belongs to the question.\n\n"


@dataclass(frozen=True, slots=True)
class Question:
    truth: str | None
    attachment: Path | None


@dataclass(frozen=True, slots=True)
class Gaia:
    dataset: str
    split: str

    @property
    def grader_version(self) -> str:
        return "gaia 2"

    def load(self) -> Iterable[Instance]:
        return map(to_instance, read_rows(self.dataset, self.split, attachments=True))

    def grader_network(self, _instance: Instance) -> str:
        return "none"

    async def prepare(self, job: Job, workspace: Workspace) -> None:
        attachment = _question(job).attachment
        if attachment is not None:
            await workspace.write(attachment, workspace.places.work / attachment.name)

    async def apply_solution(self, job: Job, _workspace: Workspace) -> None:
        truth = _question(job).truth
        if truth is None:
            raise Failed("setup", f"the answer to {job.instance.id} is not public")
        (job.folder / ANSWER).write_text(f"<solution>{truth}</solution>")

    async def collect(self, job: Job, workspace: Workspace) -> Answer:
        """Take the agent's final message from the file where the agent, or its program in the workspace, left it."""
        path = job.folder / ANSWER
        if not path.exists():
            with suppress(FileNotFoundError):
                await workspace.read(workspace.places.logs / "agent" / ANSWER, path, outputs.ANSWER)
        text = _read(path)
        return Answer(text=text, empty=not text.strip())

    async def grade(self, job: Job, answer: Answer, _workspace: Workspace) -> Grade:
        truth = _question(job).truth
        if truth is None:
            return Grade(verdict="ungraded")
        given = extract_answer(answer.text or "")
        right = is_right(given, truth)
        (job.folder / "report.json").write_text(json.dumps({"answer": given, "right": right}))
        return Grade(verdict="resolved" if right else "unresolved", score=float(right))


def to_instance(row: DatasetRow) -> Instance:
    values, name = row.values, row.text("task_id")
    question, truth = row.text("Question"), values.get(_TRUTH)
    attachment = _find_attachment(row, values)
    note = _ATTACHMENT.format(name=attachment.name) if attachment else ""
    return Instance(
        id=name,
        statement=_ASK.format(question=question, attachment=note),
        fields={"level": str(values.get("Level", ""))},
        grades_in_place=True,
        digest=row.digest,
        source=row.source,
        data=Question(truth if isinstance(truth, str) and truth not in _HIDDEN else None, attachment),
    )


def _find_attachment(row: DatasetRow, values: Mapping[str, Any]) -> Path | None:
    name = values.get("file_name")
    if not name:
        return None
    if not isinstance(name, str) or Path(name).name != name or name in (".", ".."):
        raise DatasetError(f"{row.where}: file_name {name!r} is not the name of a file")
    path = row.folder / name
    if not path.is_file():
        raise DatasetError(f"{row.where}: its file {name} is not in {row.folder}", hint="fetch the attachments too")
    return path


def _read(path: Path) -> str:
    if not path.is_file() or path.is_symlink():
        return ""
    with path.open("rb") as file:
        return file.read(outputs.ANSWER.bytes).decode("utf-8", "replace")


def extract_answer(message: str) -> str:
    """The answer in a message: the last <solution>, or what follows the last FINAL ANSWER, as the official prompt asks.

    The later of the two counts; without either, the whole message does.
    """
    found = [given for match in _ANSWER_FORMS.finditer(message) for given in match.groups() if given is not None]
    return (found[-1] if found else message).strip()


def is_right(given: str, truth: str) -> bool:
    """Compare by the rules of the official scorer: as a number, a list or a string, depending on the truth."""
    if _is_number(truth):
        return _to_number(given) == float(truth)
    if any(separator in truth for separator in ",;"):
        expected, answered = re.split("[,;]", truth), re.split("[,;]", given)
        return len(expected) == len(answered) and all(map(_is_right_element, answered, expected))
    return _normalize(given).translate(_NO_PUNCTUATION) == _normalize(truth).translate(_NO_PUNCTUATION)


_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def _is_right_element(given: str, truth: str) -> bool:
    if _is_number(truth):
        return _to_number(given) == float(truth)
    return _normalize(given) == _normalize(truth)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _to_number(text: str) -> float:
    try:
        return float(text.replace("$", "").replace("%", "").replace(",", ""))
    except ValueError:
        return float("inf")


def _normalize(text: str) -> str:
    return re.sub(r"\s", "", text).lower()


def _question(job: Job) -> Question:
    assert isinstance(job.instance.data, Question)
    return job.instance.data


def create(config: Config) -> Gaia:
    return Gaia(config.benchmark.dataset or DATASET, config.benchmark.split)
