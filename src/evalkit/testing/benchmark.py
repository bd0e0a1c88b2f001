"""A benchmark whose instances are resolved by a file with the right word."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from evalkit.domain.networks import OFFLINE, NetworkPolicy
from evalkit.domain.protocols import Workspace
from evalkit.domain.records import Answer, Grade, Instance, Job, Patch
from evalkit.testing.agent import ANSWER, RIGHT, submit
from evalkit.testing.script import Hook, Script, proceed

Step = Literal["prepare", "collect", "grade"]
Scripts = Mapping[Step, Mapping[str, Sequence[Hook]]]


class FakeBenchmark:
    """`instances` is a list, or the number of instances to make up: `fake-0000`, `fake-0001` and so on.

    `script` has an action that comes first at each preparation, collection and grading of an instance.
    """

    def __init__(
        self,
        instances: int | Iterable[Instance] = 3,
        *,
        script: Scripts | None = None,
        grader_network: NetworkPolicy = OFFLINE,
    ) -> None:
        self._grader_network = grader_network
        given = map(make_instance, range(instances)) if isinstance(instances, int) else instances
        self.instances = list(given)
        scripts = script or {}
        self.prepared: Script[Hook] = Script(proceed, scripts.get("prepare"))
        self.collected: Script[Hook] = Script(proceed, scripts.get("collect"))
        self.graded: Script[Hook] = Script(proceed, scripts.get("grade"))

    @property
    def grader_version(self) -> str:
        return "fake 1"

    def load(self) -> Iterable[Instance]:
        return iter(self.instances)

    def grader_network(self, instance: Instance) -> NetworkPolicy:
        return self._grader_network

    async def prepare(self, job: Job, workspace: Workspace) -> None:
        await self.prepared.next(job.instance.id)(job, workspace)

    async def apply_solution(self, job: Job, workspace: Workspace) -> None:
        await submit(workspace, RIGHT.encode())

    async def collect(self, job: Job, workspace: Workspace) -> Answer:
        await self.collected.next(job.instance.id)(job, workspace)
        patch = job.folder / "patch.diff"
        try:
            await workspace.read(workspace.places.work / ANSWER, patch)
        except FileNotFoundError:
            return Answer(empty=True)
        content = patch.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        path = str(patch.relative_to(job.run_folder))
        return Answer(patch=Patch(sha256=digest, bytes=len(content), path=path), empty=not content)

    async def grade(self, job: Job, answer: Answer, workspace: Workspace) -> Grade:
        await self.graded.next(job.instance.id)(job, workspace)
        assert answer.patch is not None
        if (job.run_folder / answer.patch.path).read_bytes() == RIGHT.encode():
            return Grade(verdict="resolved", score=1.0)
        return Grade(verdict="unresolved", score=0.0)


def make_instance(number: int) -> Instance:
    group = "even" if number % 2 == 0 else "odd"
    return Instance(id=f"fake-{number:04}", statement=f"Say the right word, {number}.", fields={"group": group})
