"""The seams of evalkit: what a workspace, an agent, a benchmark and a critic can do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Protocol, runtime_checkable

from evalkit.domain.failures import Failed
from evalkit.domain.records import Answer, Failure, Grade, Instance, Job, Meter, Result, Usage


@dataclass(frozen=True, slots=True)
class Places:
    """Where things are inside a workspace; scripts find them in EVALKIT_WORK and so on."""

    work: PurePosixPath
    tests: PurePosixPath
    logs: PurePosixPath
    solution: PurePosixPath

    def environment(self) -> dict[str, str]:
        return {
            "EVALKIT_WORK": str(self.work),
            "EVALKIT_TESTS": str(self.tests),
            "EVALKIT_LOGS": str(self.logs),
            "EVALKIT_SOLUTION": str(self.solution),
        }


@dataclass(frozen=True, slots=True)
class Exit:
    """How a command ended. `tail` is the end of what it wrote, for messages; the whole goes to a file."""

    code: int
    tail: str = ""
    lacked_memory: bool = False
    """Some process was killed for lack of memory. Where the command failed too, exec raises Failed("oom") instead."""


class Workspace(Protocol):
    """A place of its own for one instance. Paths are absolute, inside the workspace."""

    @property
    def places(self) -> Places: ...

    async def exec(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: PurePosixPath | None = None,
        stdin: Path | None = None,
        stdout: Path | None = None,
        stderr: Path | None = None,
    ) -> Exit:
        """Run a command to its end.

        `stdout` and `stderr` are files of the host to append to, as the output comes; the same path for both keeps
        their order. What has no file is kept only as the tail. A status above 128 is a signal's number plus 128.
        When exec is cancelled, the command is killed, with all that stayed in its session. What daemons it left,
        and what it left in the background when it returned, may live on, as a server that is to be graded does,
        until the workspace is interrupted or closed.
        """
        ...

    async def write(self, source: Path | bytes, target: PurePosixPath) -> None:
        """Put a file or the contents of a directory of the host there; parents are made, modes are kept."""
        ...

    async def read(self, source: PurePosixPath, target: Path) -> None:
        """Copy a file or the contents of a directory out to the host; FileNotFoundError where there is none.

        Links inside a directory stay links. A link in the very place is not followed: it counts as nothing there.
        """
        ...

    async def interrupt(self) -> None:
        """Kill everything that runs in the workspace; its files stay."""
        ...


Purpose = Literal["solve", "grade"]


@dataclass(frozen=True, slots=True)
class WorkspaceSpec:
    """What is asked of a workspace that is to be opened."""

    job: Job
    purpose: Purpose
    network: str = "none"
    memory: int = 0
    cpus: float = 0.0


@dataclass(frozen=True, slots=True)
class RunScope:
    """What the workspaces of a run need to know of it."""

    run_id: str
    scratch: Path
    """A temporary folder that ends with the process."""
    hidden: Sequence[Path] = ()
    """Folders of the host that hold answers, which no agent may see."""


class Workspaces(Protocol):
    """Opens workspaces. Nothing of a workspace is left when its context ends, however it ends.

    A context must not hold a cancel scope or a task group open across its yield: deadlines are set around its entry.
    """

    @property
    def memory_budget(self) -> int | None:
        """Bytes that all open workspaces together may ask for; None where nothing enforces a limit."""
        ...

    def open(self, spec: WorkspaceSpec) -> AbstractAsyncContextManager[Workspace]: ...

    async def missing_images(self, instances: Iterable[Instance]) -> Mapping[str, str]:
        """Images that these instances need and that cannot be had, each with the reason; asked before any starts."""
        ...


class Agent(Protocol):
    async def solve(self, job: Job, workspace: Workspace, meter: Meter) -> None:
        """Work on the instance. Raise Failed for what has a kind; the deadline is a cancellation."""
        ...


@runtime_checkable
class Lasting(Protocol):
    """A part that holds something open, like connections, as long as a run goes on."""

    def lasting(self) -> AbstractAsyncContextManager[None]: ...


@dataclass(frozen=True, slots=True)
class Tool:
    """What a model may call. `parameters` is a JSON Schema."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ToolUse:
    """A call that a model asks for. `arguments` is the text it wrote, which should be JSON."""

    id: str
    name: str
    arguments: str


Message = Mapping[str, Any]
"""A message as the chat completions API writes it."""


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer of a model. `message` goes into the conversation as it is."""

    message: Message
    text: str
    tool_uses: Sequence[ToolUse]
    usage: Usage
    finish_reason: str = ""
    reasoning: str = ""
    model: str = ""


class Conversation(Protocol):
    """The calls of one attempt."""

    async def complete(self, messages: Sequence[Message], tools: Sequence[Tool]) -> Completion:
        """Ask the model, counting what it costs. Raises Failed with a kind of its own for all that can go wrong."""
        ...


MODEL_SOCKET = "model.sock"
"""In the scratch folder of a job: the way to the model, where `workspace.network` is `model`.

Programs in the workspace find it as an OpenAI-compatible endpoint at the URL in EVALKIT_MODEL_URL.
"""


IMAGES = "images"
"""In the folder of an attempt, where its benchmark has fetched images of the statement: copies of them.

`images.json` lists them in order: `url`, and `file` with the name of the copy, or `missing` with a reason.
"""


class Forwarding(Protocol):
    @property
    def problem(self) -> Failed | None:
        """Why the model could not be asked, where the agent could not have done better."""
        ...


class ModelEndpoint(Lasting, Protocol):
    """A model that agents on this machine ask, shared by all attempts of a run."""

    @property
    def name(self) -> str: ...

    def conversation(self, job: Job, meter: Meter) -> AbstractAsyncContextManager[Conversation]: ...

    def forwarding(self, job: Job, meter: Meter, socket: Path) -> AbstractAsyncContextManager[Forwarding]:
        """Let an agent in a workspace ask the model through this socket, without a key, and count what it does."""
        ...


class Benchmark(Protocol):
    @property
    def grader_version(self) -> str:
        """What verdicts depend on besides answer and instance. Raises EvalkitError where nothing here can grade."""
        ...

    def load(self) -> Iterable[Instance]: ...

    def grader_network(self, instance: Instance) -> str:
        """The network that the grader needs, `none` unless the benchmark says otherwise."""
        ...

    async def prepare(self, job: Job, workspace: Workspace) -> None: ...

    async def apply_solution(self, job: Job, workspace: Workspace) -> None:
        """Put the reference solution in place, as the `gold` agent does."""
        ...

    async def collect(self, job: Job, workspace: Workspace) -> Answer: ...

    async def grade(self, job: Job, answer: Answer, workspace: Workspace) -> Grade:
        """Judge an answer, in a fresh workspace unless the instance grades in place."""
        ...


@runtime_checkable
class LogJudge(Protocol):
    """A benchmark that can judge the recorded log of its tests, without a workspace."""

    def judge_log(self, instance: Instance, folder: Path) -> Grade:
        """Judge `test_output.txt` of a folder and write its `report.json`. Raises Failed for what is no verdict."""
        ...


@runtime_checkable
class ReferencePatches(Protocol):
    """A benchmark whose reference solutions are patches, which can be graded like any other."""

    def reference_patch(self, instance: Instance) -> bytes: ...


class Critic(Protocol):
    """Decides whether an attempt that did not fail is good enough to make no other."""

    def __call__(self, result: Result, /) -> bool: ...


class Observer(Protocol):
    """Is told what happens in a run, as it happens. It decides nothing."""

    def entered(self, instance_id: str, attempt: int, stage: str) -> None: ...

    def retrying(self, instance_id: str, attempt: int, failure: Failure, delay: float) -> None: ...

    def finished(self, result: Result) -> None: ...

    def added(self, instance_id: str, attempt: int) -> None:
        """One more attempt follows from a result."""
        ...

    def held(self, reason: str | None) -> None:
        """Nothing new starts for this reason; None when the hold is over."""
        ...
