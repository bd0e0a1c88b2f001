"""What a build does next, decided from what is known. No I/O happens here."""

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
# As BuildKit shows what a step printed: its number, the time, the line.
_PRINTED = re.compile(r"#\d+ \d+\.\d+ (.*)")


@dataclass(frozen=True, slots=True)
class Todo:
    """What an image lacks."""

    build: bool
    push: bool


def needs_registry(image: Reference, *, is_local: bool, force: bool, push: bool) -> bool:
    """Whether a registry has to say what an image lacks. Names without a host are ours only on this engine."""
    return not force and (push or not (is_local or image.host == reference.DOCKER_HUB))


def find_todo(*, is_local: bool, is_in_registry: bool, force: bool, push: bool) -> Todo:
    """An image in the registry is complete; one on this engine is built, and may have to be pushed."""
    if is_in_registry and not force:
        return Todo(build=False, push=False)
    return Todo(build=force or not is_local, push=push)


@dataclass(frozen=True, slots=True)
class Done:
    """It was carried out."""


@dataclass(frozen=True, slots=True)
class Again:
    """It failed, and may succeed the next time."""

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
    """What follows from a try. The death of a worker is a failed try like any other; a fault of the machine is none."""
    if report.problem is None:
        return Done()
    if shortage := find_shortage(report.errno or errno_of_crash(report.tail)):
        return Stop(shortage)
    if not engine_answers:
        hint = "start it, and run the same command again"
        return Stop(EngineUnavailable("the engine does not answer any more", hint=hint))
    problem = describe(report)
    return GivenUp(problem) if report.final or tries > retries else Again(problem)


def after_failed_pull(name: str, said: str, *, is_missing: bool, tries: int, retries: int) -> Again | GivenUp:
    """What follows when a base cannot be pulled. Only a registry knows that an image is missing."""
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
        """The bases that nothing needs any more once this image is done."""
        self._count.subtract(image.needs)
        return [base for base in image.needs if self._count[base] == 0]


def find_obsolete(tags: Iterable[str], repository: str, wanted: frozenset[str]) -> list[str]:
    """Images of earlier plans, which may go when the disk is full."""
    return [tag for tag in tags if tag.startswith(f"{repository}:") and tag not in wanted]


def describe(report: BuildReport) -> str:
    """What went wrong, and the last lines of the step that failed rather than of the builder."""
    lines = [line.strip() for line in report.tail.splitlines() if line.strip()]
    printed = [found[1] for line in lines if (found := _PRINTED.fullmatch(line))]
    last = " | ".join((printed or lines)[-_LAST_LINES:])
    return f"{report.problem}: {last[-_LONGEST_ERROR:]}" if last else str(report.problem)
