"""Task directories: a statement, a work folder, hidden tests, and a reward."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit.benchmarks.grading import require_resources, require_workspace, set_aside
from evalkit.benchmarks.patches import apply_patch, compare_trees, describe_patch
from evalkit.benchmarks.task_folders import BUNDLED, is_task
from evalkit.benchmarks.taskfile import (
    CONTAINER_FILES,
    Task,
    describe_missing,
    leads_out,
    read_task,
    resolve,
    unknown_fields,
)
from evalkit.config import Config
from evalkit.domain.failures import Failed
from evalkit.domain.outputs import ARTIFACTS, REWARD, UNTOUCHED, TooLarge
from evalkit.domain.protocols import Workspace
from evalkit.domain.records import Answer, Grade, Instance, Job
from evalkit.errors import DatasetError, first_few
from evalkit.logs import logger
from evalkit.system import files
from evalkit.system.threads import in_thread

_MOST_NAMED = 5

_RUN_SOLUTION = 'chmod +x "$EVALKIT_SOLUTION/solve.sh" && exec "$EVALKIT_SOLUTION/solve.sh"'
_RUN_TESTS = 'chmod +x "$EVALKIT_TESTS/test.sh" && exec "$EVALKIT_TESTS/test.sh"'
_CLEAR_WORK = 'cd "$EVALKIT_WORK" && rm -rf -- ..?* .[!.]* *'
_CLEAR_TESTS = 'rm -rf "$EVALKIT_TESTS" "$EVALKIT_LOGS/verifier" && mkdir -p "$EVALKIT_LOGS/verifier"'


@dataclass(frozen=True, slots=True)
class TaskDirectories:
    root: Path
    in_containers: bool
    network: str = "none"
    build_seconds: float = math.inf

    @property
    def grader_version(self) -> str:
        return "tasks 1"

    def load(self) -> Iterable[Instance]:
        if not self.root.is_dir():
            raise DatasetError(f"there is no directory of tasks {self.root}")
        said: dict[str, list[str]] = {}
        for instance in self._read():
            _note(instance, said, self.network, self.build_seconds)
            yield instance
        for note in _describe_notes(said):
            logger.warning("%s", note)

    def _read(self) -> Iterator[Instance]:
        if is_task(self.root):
            yield self._read_one(self.root.resolve())
            return
        try:
            folders = sorted(path for path in self.root.resolve().iterdir() if path.is_dir())
        except OSError as error:
            raise DatasetError(f"{self.root} cannot be read: {error.strerror}") from error
        for folder in folders:
            if is_task(folder):
                yield self._read_one(folder)
            elif not folder.name.startswith((".", "_")):
                logger.warning("%s is no task: it has no instruction.md", folder)

    def _read_one(self, folder: Path) -> Instance:
        return read_task(folder, in_containers=self.in_containers, network=self.network)

    def grader_network(self, instance: Instance) -> str:
        """Of a fresh workspace: the task's own policy, and without one that of the run."""
        assert isinstance(instance.data, Task)
        asked = instance.data.file.verifier_network
        if asked is None and leads_out(self.network):
            return self.network
        return "bridge" if asked == "public" else "none"

    async def prepare(self, job: Job, workspace: Workspace) -> None:
        if self._brings_files(job):
            await self._lay_out(job, job.scratch / "a")
            await workspace.write(job.scratch / "a", workspace.places.work)
        elif not job.instance.grades_in_place:
            await workspace.read(workspace.places.work, job.scratch / "a", UNTOUCHED)

    async def apply_solution(self, job: Job, workspace: Workspace) -> None:
        task = _task(job)
        if not (task.solution / "solve.sh").is_file():
            raise Failed("setup", f"task {job.instance.id} has no solution/solve.sh", may_pass=False)
        await workspace.write(task.solution, workspace.places.solution)
        end = await workspace.exec(
            ("/bin/sh", "-c", _RUN_SOLUTION), env=_resolved(task.file.solution.env), stdout=job.log, stderr=job.log
        )
        require_workspace(end, "solve.sh")
        if end.code != 0:
            raise Failed("agent", f"solve.sh exited with status {end.code}: {end.tail.strip()}")

    async def collect(self, job: Job, workspace: Workspace) -> Answer:
        if job.instance.grades_in_place:
            return Answer()
        before = await in_thread(files.measure, job.scratch / "a")
        after = job.scratch / "b"
        after.mkdir(parents=True)
        with suppress(FileNotFoundError):  # a deleted work folder is an answer too
            await workspace.read(workspace.places.work, after, ARTIFACTS.beyond(before))
        if not after.is_dir():  # and so is a file in its place
            after.unlink()
            after.mkdir()
        patch = job.folder / "patch.diff"
        await compare_trees(job.scratch / "a", after, patch)
        return describe_patch(patch, job)

    async def grade(self, job: Job, answer: Answer, workspace: Workspace) -> Grade:
        if not job.instance.grades_in_place:
            refusal = await self._restore(job, answer, workspace)
            if refusal is not None:
                (job.folder / "report.json").write_text(json.dumps({"reward": 0.0, "patch_refused": refusal}))
                return Grade(verdict="unresolved", score=0.0)
        return await self._run_tests(job, workspace)

    async def _restore(self, job: Job, answer: Answer, workspace: Workspace) -> str | None:
        """Bring a fresh workspace to the state that the answer describes. Returns git's message if it refuses."""
        assert answer.patch is not None
        tree = job.scratch / "graded"
        if self._brings_files(job):
            await self._lay_out(job, tree)
        else:
            await workspace.read(workspace.places.work, tree, UNTOUCHED)
        refusal = await apply_patch(job.run_folder / answer.patch.path, tree)
        if refusal is None:
            require_workspace(await workspace.exec(("/bin/sh", "-c", _CLEAR_WORK)), "rm")
            await workspace.write(tree, workspace.places.work)
        return refusal

    async def _run_tests(self, job: Job, workspace: Workspace) -> Grade:
        task, log = _task(job), job.folder / "test_output.txt"
        set_aside(job.folder, log.name, "report.json", "verifier")
        # The agent may have left files where tests and rewards belong.
        require_workspace(await workspace.exec(("/bin/sh", "-c", _CLEAR_TESTS)), "rm")
        await workspace.write(task.tests, workspace.places.tests)
        variables = _resolved(task.file.verifier.env)
        end = await workspace.exec(("/bin/sh", "-c", _RUN_TESTS), env=variables, stdout=log, stderr=log)
        require_workspace(end, "the tests")
        verifier = job.folder / "verifier"
        with suppress(FileNotFoundError):
            await workspace.read(workspace.places.logs / "verifier", verifier)
        rewards = read_rewards(verifier)
        if rewards is None:
            rewards = {"reward": 1.0 if end.code == 0 else 0.0}
        score = score_of(rewards)
        if score < 1.0:
            require_resources(end)
        report = {"reward": score, "rewards": rewards, "exit_code": end.code}
        (job.folder / "report.json").write_text(json.dumps(report, indent=1))
        metrics = rewards if len(rewards) > 1 else {}
        return Grade(
            verdict="resolved" if score >= 1.0 else "unresolved",
            score=score,
            metrics=metrics,
            suspicious=tuple(find_disagreement(verifier, score)),
        )

    def _brings_files(self, job: Job) -> bool:
        """Whether the task's files are copied into the work folder, as there is no image with them."""
        task = _task(job)
        return not self.in_containers or (task.file.environment.docker_image is None and task.dockerfile is None)

    async def _lay_out(self, job: Job, target: Path) -> None:
        task = _task(job)
        target.mkdir(parents=True)
        if task.environment.is_dir():
            await in_thread(files.copy, task.environment, target)
        for name in CONTAINER_FILES:
            (target / name).unlink(missing_ok=True)


def notes_on(instances: Iterable[Instance], network: str, build_seconds: float) -> Iterator[str]:
    """Notes on settings in task files that have no effect, or an unexpected one; each once, with its tasks."""
    said: dict[str, list[str]] = {}
    for instance in instances:
        _note(instance, said, network, build_seconds)
    return _describe_notes(said)


def _note(instance: Instance, said: dict[str, list[str]], network: str, build_seconds: float) -> None:
    for note in _notes_on(instance, network, build_seconds):
        said.setdefault(note, []).append(instance.id)


def _describe_notes(said: Mapping[str, list[str]]) -> Iterator[str]:
    for note, names in said.items():
        yield f"task.toml of {first_few(names, _MOST_NAMED)}: {note}"


def _notes_on(instance: Instance, network: str, build_seconds: float) -> Iterator[str]:
    assert isinstance(instance.data, Task)
    file = instance.data.file
    yield from (f"{name} is unknown, and has no effect" for name in unknown_fields(file))
    yield from (f"{name} has no effect" for name in file.without_effect())
    if instance.problem:
        yield f"{instance.problem}: it will fail"
    if file.agent_network == "public" and not leads_out(network):
        whose = "agents, and tests that run where they worked, get" if instance.grades_in_place else "agents get"
        yield f"it asks for a network, and {whose} what workspace.network says: {network}"
    if (file.environment.build_timeout_sec or 0) > build_seconds:
        yield "environment.build_timeout_sec is more than timeouts.build, which holds"


def read_rewards(folder: Path) -> dict[str, float] | None:
    """The rewards of a verifier, if it wrote any: the object in reward.json, else the number in reward.txt."""
    found = [path for path in (folder / "reward.json", folder / "reward.txt") if _is_plain(path)]
    return _read_rewards(found[0]) if found else None


def score_of(rewards: Mapping[str, float]) -> float:
    return rewards.get("reward", math.fsum(rewards.values()) / len(rewards))


def find_disagreement(folder: Path, score: float) -> Iterator[str]:
    """Report two reward files that disagree: tests write one, and the code under test may have left the other."""
    other = folder / "reward.txt"
    if not (_is_plain(folder / "reward.json") and _is_plain(other)):
        return
    try:
        differs = score_of(_read_rewards(other)) != score
    except (Failed, TooLarge):
        differs = True
    if differs:
        yield "reward.json and reward.txt differ"


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _read_rewards(path: Path) -> dict[str, float]:
    if path.stat().st_size > REWARD.bytes:
        raise TooLarge.in_bytes(REWARD)
    return _parse_rewards(path.read_bytes().decode("utf-8", "replace"), path.name)


def _parse_rewards(text: str, name: str) -> dict[str, float]:
    try:
        found: Any = json.loads(text)
        rewards = found if isinstance(found, dict) else {"reward": found}
        numbers = {str(key): float(value) for key, value in rewards.items() if not isinstance(value, str)}
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise Failed("grader", f"{name} is neither a number nor an object of numbers: {text[:80]!r}") from error
    if not numbers or len(numbers) < len(rewards):
        raise Failed("grader", f"{name} is neither a number nor an object of numbers: {text[:80]!r}")
    for key, number in numbers.items():
        if not math.isfinite(number):
            raise Failed("grader", f"{name}: {key} is {number}, not a finite number")
    return numbers


def _resolved(variables: Mapping[str, str]) -> dict[str, str]:
    try:
        return resolve(dict(variables), os.environ)
    except KeyError as missing:
        raise Failed("setup", describe_missing(missing), may_pass=False) from None


def _task(job: Job) -> Task:
    assert isinstance(job.instance.data, Task)
    return job.instance.data


def create(config: Config) -> TaskDirectories:
    dataset = config.benchmark.dataset
    return TaskDirectories(
        root=Path(dataset) if dataset else BUNDLED,
        in_containers=config.workspace_kind != "local",
        network=config.workspace.network,
        build_seconds=config.timeouts.build,
    )
