"""What a build does next, whatever has happened so far."""

from __future__ import annotations

import errno
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.containers import reference
from evalkit.images.decisions import (
    Again,
    Done,
    GivenUp,
    Needs,
    Stop,
    Todo,
    after_build,
    after_failed_pull,
    describe,
    find_obsolete,
    find_todo,
    needs_registry,
)
from evalkit.images.plan import ImageSpec
from evalkit.images.worker import BuildReport

OURS, HUB = reference.parse("registry.example/evals:one"), reference.parse("evals:one")
FAILED = BuildReport("build failed with status 1", "", {})


@pytest.mark.parametrize(
    ("is_local", "is_in_registry", "force", "push", "todo"),
    [
        (False, False, False, False, Todo(build=True, push=False)),
        (False, False, False, True, Todo(build=True, push=True)),
        (False, True, False, True, Todo(build=False, push=False)),
        (True, False, False, False, Todo(build=False, push=False)),
        (True, False, False, True, Todo(build=False, push=True)),
        (True, True, False, True, Todo(build=False, push=False)),
        (True, True, True, False, Todo(build=True, push=False)),
        (True, True, True, True, Todo(build=True, push=True)),
    ],
)
def test_only_what_an_image_lacks_is_done(
    is_local: bool, is_in_registry: bool, force: bool, push: bool, todo: Todo
) -> None:
    assert find_todo(is_local=is_local, is_in_registry=is_in_registry, force=force, push=push) == todo


def test_a_registry_is_asked_only_where_its_answer_decides() -> None:
    assert needs_registry(OURS, is_local=False, force=False, push=False), "somebody may have pushed it"
    assert not needs_registry(OURS, is_local=True, force=False, push=False)
    assert not needs_registry(HUB, is_local=False, force=False, push=False), "a name without a host is of this engine"
    assert needs_registry(HUB, is_local=True, force=False, push=True)
    assert not needs_registry(OURS, is_local=False, force=True, push=True)


@given(st.integers(0, 20), st.booleans())
def test_a_build_that_fails_is_tried_once_more_than_there_are_retries(retries: int, worker_dies: bool) -> None:
    report = BuildReport("the process that built it is gone", "", {}) if worker_dies else FAILED
    steps = [after_build(report, tries=tries, retries=retries) for tries in range(1, retries + 2)]
    assert steps == [Again(str(report.problem))] * retries + [GivenUp(str(report.problem))]


@given(st.integers(1, 20), st.integers(0, 20))
def test_what_was_done_is_done_and_what_is_final_is_not_tried_again(tries: int, retries: int) -> None:
    assert after_build(BuildReport(None, "", {}), tries=tries, retries=retries) == Done()
    final = BuildReport("build was not done after 3 s", "", {}, final=True)
    assert isinstance(after_build(final, tries=tries, retries=retries), GivenUp)


@given(
    number=st.sampled_from([errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM, errno.ENOSPC]),
    tries=st.integers(1, 20),
    engine_answers=st.booleans(),
)
def test_what_the_machine_lacks_fails_no_image(number: int, tries: int, engine_answers: bool) -> None:
    report = BuildReport("cannot be run", "", {}, errno=number)
    step = after_build(report, tries=tries, retries=0, engine_answers=engine_answers)
    assert isinstance(step, Stop)
    assert (step.error.kind, step.error.exit_code) == ("environment", 3)


@pytest.mark.parametrize(
    "reason",
    [
        "runtime: failed to create new OS thread (have 5 already; errno=11)",
        "runtime/cgo: pthread_create failed: Resource temporarily unavailable",
    ],
)
def test_a_command_that_crashed_for_want_of_a_thread_fails_no_image(reason: str) -> None:
    tail = f"{reason}\nSIGABRT: abort\ngs     0x0\n"
    step = after_build(BuildReport("build failed with status 2", tail, {}), tries=1, retries=0)
    assert isinstance(step, Stop)
    assert "processes" in step.error.message


def test_without_an_engine_nothing_is_tried_again() -> None:
    step = after_build(FAILED, tries=1, retries=5, engine_answers=False)
    assert isinstance(step, Stop)
    assert step.error.kind == "engine"


def test_a_pull_is_tried_again_unless_a_registry_says_that_there_is_no_image() -> None:
    again = after_failed_pull("base:1", "connection refused", is_missing=False, tries=1, retries=1)
    assert again == Again("base:1 cannot be pulled: connection refused")
    assert isinstance(after_failed_pull("base:1", "no", is_missing=False, tries=2, retries=1), GivenUp)
    missing = after_failed_pull("base:1", "denied", is_missing=True, tries=1, retries=9)
    assert missing == GivenUp("there is no image base:1")


def test_without_an_engine_nothing_is_pulled_again() -> None:
    step = after_failed_pull("base:1", "refused", is_missing=False, tries=1, retries=5, engine_answers=False)
    assert isinstance(step, Stop)
    assert step.error.kind == "engine"


@given(st.lists(st.lists(st.sampled_from("abcd"), unique=True), max_size=12), st.randoms(use_true_random=False))
def test_a_base_goes_with_the_last_image_that_needs_it(needs: list[list[str]], order: random.Random) -> None:
    images = [ImageSpec(f"tag:{number}", "", "", tuple(bases)) for number, bases in enumerate(needs)]
    waiting = Needs.of(images)
    order.shuffle(images)
    gone: list[str] = []
    for number, image in enumerate(images):
        gone += waiting.finish(image)
        assert not {base for later in images[number + 1 :] for base in later.needs} & set(gone)
    assert sorted(gone) == sorted({base for image in images for base in image.needs})


def test_only_images_of_earlier_plans_are_obsolete() -> None:
    tags = ["evals:now", "evals:earlier", "evals-of-others:earlier", "base:1"]
    assert find_obsolete(tags, "evals", frozenset({"evals:now"})) == ["evals:earlier"]


def test_a_failure_is_told_by_what_the_step_printed_rather_than_by_the_builder() -> None:
    tail = "#5 [2/2] RUN make\n#5 0.312 cc: fatal error\n#5 0.313 no input files\n#5 ERROR: exit code: 1\n------\n"
    report = BuildReport("build failed with status 1", tail, {})
    assert describe(report) == "build failed with status 1: cc: fatal error | no input files"
    assert describe(BuildReport("push failed", "denied\n", {})) == "push failed: denied"
    assert len(describe(BuildReport("build failed", "x" * 5000, {}))) < 1100
