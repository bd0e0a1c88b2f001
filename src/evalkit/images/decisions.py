"""Decides the next step of a build from what is known. No I/O happens here."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from evalkit.containers import reference
from evalkit.containers.docker_cli import errno_of_crash
from evalkit.containers.reference import Reference
from evalkit.errors import EngineUnavailable, EvalkitError
from evalkit.images.plan import ImageSpec
from evalkit.images.shortages import find_shortage
from evalkit.images.worker import BuildReport

_LONGEST_ERROR = 1000
_LAST_LINES = 8
# A line of a step's output in BuildKit's plain progress: the number of the step, the time, the text.
_PRINTED = re.compile(r"#\d+ \d+\.\d+ (.*)")


@dataclass(frozen=True, slots=True)
class Todo:
    """The work left on an image."""

    build: bool
    push: bool


def needs_registry(image: Reference, *, is_local: bool, force: bool, push: bool) -> bool:
    """Whether a registry has to be asked. An image whose name has no host is ours only on this engine."""
    return not force and (push or not (is_local or image.host == reference.DOCKER_HUB))


def find_todo(*, is_local: bool, is_in_registry: bool, force: bool, push: bool) -> Todo:
    """An image in the registry is complete; one on this engine is built, and may have to be pushed."""
    if is_in_registry and not force:
        return Todo(build=False, push=False)
    return Todo(build=force or not is_local, push=push)


@dataclass(frozen=True, slots=True)
class Done:
    """The build succeeded."""


@dataclass(frozen=True, slots=True)
class Again:
    """The build failed and may succeed next time."""

    problem: str


@dataclass(frozen=True, slots=True)
class GivenUp:
    """It failed for good. Other images can be built."""

    problem: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Nothing more can be built now."""

    error: EvalkitError


def after_build(
    report: BuildReport, *, tries: int, retries: int, engine_answers: bool = True
) -> Done | Again | GivenUp | Stop:
    """Decide after a build. A worker's death is an ordinary failed build; a fault of the machine stops all builds."""
    if report.problem is None:
        return Done()
    if shortage := find_shortage(report.errno or errno_of_crash(report.tail)):
        return Stop(shortage)
    if not engine_answers:
        return Stop(engine_gone())
    problem = describe(report)
    return GivenUp(problem) if report.final or tries > retries else Again(problem)


def engine_gone() -> EngineUnavailable:
    return EngineUnavailable("the engine does not answer any more", hint="start it, and run the same command again")


def after_failed_pull(
    name: str, said: str, *, is_missing: bool, tries: int, retries: int, engine_answers: bool = True
) -> Again | GivenUp | Stop:
    """Decide after a failed pull of a base. Only a registry can say that an image is missing."""
    if not engine_answers:
        return Stop(engine_gone())
    if is_missing:
        return GivenUp(f"there is no image {name}")
    problem = f"{name} cannot be pulled: {said}"
    return GivenUp(problem) if tries > retries else Again(problem)


@dataclass(slots=True)
class Needs:
    """How many images still need each base."""

    _count: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, images: Iterable[ImageSpec]) -> Needs:
        return cls(Counter(base for image in images for base in image.needs))

    def finish(self, image: ImageSpec) -> list[str]:
        """The bases that no other image needs once this one is done."""
        self._count.subtract(image.needs)
        return [base for base in image.needs if self._count[base] == 0]


def find_obsolete(tags: Iterable[str], repository: str, wanted: frozenset[str]) -> list[str]:
    """Images of earlier plans, which may go when the disk is full."""
    return [tag for tag in tags if tag.startswith(f"{repository}:") and tag not in wanted]


def describe(report: BuildReport) -> str:
    """The problem, with the last lines of the failed step rather than the builder's."""
    lines = [line.strip() for line in report.tail.splitlines() if line.strip()]
    printed = [found[1] for line in lines if (found := _PRINTED.fullmatch(line))]
    last = " | ".join((printed or lines)[-_LAST_LINES:])
    return f"{report.problem}: {last[-_LONGEST_ERROR:]}" if last else str(report.problem)
