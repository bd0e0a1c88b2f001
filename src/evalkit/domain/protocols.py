"""The protocols of evalkit's parts: workspaces, agents, benchmarks, models, critics and observers.

A part has the members, and inherits from nothing. Parts of other packages are found by entry point and follow the same
protocols. Exceptions decide what follows: `Failed` has a kind, and the table in `failures` says for each kind whether
it is tried again and whose fault it is; any other exception gets the kind of its stage. A part never swallows a
cancellation, since deadlines and ^C arrive as one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from msgspec import structs

from evalkit.domain.failures import Failed
from evalkit.domain.networks import NetworkPolicy
from evalkit.domain.outputs import ARTIFACTS, OutputLimit
from evalkit.domain.records import Answer, Environment, Failure, Grade, Instance, Job, Meter, Result, Usage


@dataclass(frozen=True, slots=True)
class Places:
    """Folders inside a workspace, which scripts find in EVALKIT_WORK and so on."""

    work: PurePosixPath
    """Where the agent works. What it changes there is its answer."""
    tests: PurePosixPath
    """Where hidden tests are put once the agent has ended."""
    logs: PurePosixPath
    """Files for people to read later: `agent/` for the agent, `verifier/` for the grader.

    Containers also have `artifacts/`, which is collected.
    """
    solution: PurePosixPath
    """Where the reference solution is put for the `gold` agent."""

    @property
    def log_folders(self) -> tuple[PurePosixPath, ...]:
        return (self.logs / "agent", self.logs / "verifier", self.logs / "artifacts")

    def environment(self) -> dict[str, str]:
        """The folders as environment variables for scripts."""
        return {
            "EVALKIT_WORK": str(self.work),
            "EVALKIT_TESTS": str(self.tests),
            "EVALKIT_LOGS": str(self.logs),
            "EVALKIT_SOLUTION": str(self.solution),
        }


@dataclass(frozen=True, slots=True)
class Exit:
    """How a command ended."""

    code: int
    """Its status; above 128, the number of the signal that ended it plus 128."""
    tail: str = ""
    """The end of its output, for messages. The files given to exec have the whole."""
    lacked_memory: bool = False
    """Some process was killed for lack of memory. Where the command failed too, exec raises Failed("oom") instead."""
    lacked_processes: bool = False
    """The kernel refused to create a process meanwhile, because of the limit on their number."""
    workspace_ended: bool = False
    """The workspace ended with it, by the machine or by the command: its status says nothing. See WorkspaceEnded."""


class Workspace(Protocol):
    """A place of its own for one instance. Paths are absolute, inside the workspace.

    An agent writes its content: nothing in it is trusted, followed as a link, or read without a limit.
    Trouble with the place itself is Failed("workspace") or Failed("engine"); it is tried again in a fresh one. So is a
    command that could not even begin.
    """

    @property
    def places(self) -> Places:
        """Where the work folder and the others are. They exist when the workspace is opened."""
        ...

    @property
    def model(self) -> ModelAccess | None:
        """The model of its spec."""
        ...

    async def exec(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: PurePosixPath | None = None,
        stdin: Path | None = None,
        stdout: Path | None = None,
        stderr: Path | None = None,
        limit: OutputLimit | None = None,
        asks_model: bool = False,
        user: str | None = None,
    ) -> Exit:
        """Run a command to its end.

        It starts in `cwd`, which is the work folder unless given, without a terminal. `env` is added to the variables
        that the workspace has; `stdin` is a file of the host, and nothing unless given. With `asks_model`, and a model
        in the spec, its programs find that model as an OpenAI-compatible endpoint at the URL in EVALKIT_MODEL_URL, as
        long as the command runs.

        `user` is a user inside, by name or number, in place of that of the spec; an empty text is the image's own user.
        It is given only to workspaces of an environment that names users, and to containers.

        `stdout` and `stderr` are files of the host to append to, as the output comes; the same path for both keeps
        their order. What has no file is kept only as the tail. With a `limit`, `stdout` is an answer: once it is
        larger, the command is killed and TooLarge raised. Other files are logs: of one that grows too long the rest is
        left out, and a line in it says so. A status above 128 is a signal's number plus 128.
        When exec is cancelled, the command is killed, with all that stayed in its session. What daemons it left,
        and what it left in the background when it returned, may live on until the workspace is interrupted or closed.
        What agents leave running is ended before their work is graded.
        """
        ...

    async def write(self, source: Path | bytes, target: PurePosixPath) -> None:
        """Put a file or the contents of a directory of the host there; parents are made, modes are kept."""
        ...

    async def read(self, source: PurePosixPath, target: Path, limit: OutputLimit = ARTIFACTS) -> None:
        """Copy a file or the contents of a directory out to the host; FileNotFoundError where there is none.

        No more than the limit is copied, while it streams: of what is larger nothing is kept, and TooLarge is raised.
        What the limit leaves out is neither copied nor counted.

        Links inside a directory stay links. A link in the very place is not followed: it counts as nothing there.
        """
        ...

    async def interrupt(self) -> None:
        """Kill everything that runs in the workspace; its files stay, and commands can be run again."""
        ...

    async def change_network(self, policy: NetworkPolicy, purpose: Purpose = "grade") -> None:
        """Cut what commands reach, and open what those of the next purpose may reach.

        It is called where a grader works in the agent's own workspace and reaches something else, once all processes
        of the agent have ended; and where the agent comes back, once all of the grader have.
        """
        ...


class ChangedFiles(NamedTuple):
    """Files that differ from those of an image."""

    paths: Sequence[str]
    is_whole: bool = True
    """Whether these are all; there may be more than can be looked at."""


@runtime_checkable
class OfAnImage(Protocol):
    """A workspace that knows, from outside of it, which files differ from those of its image."""

    async def changed_files(self, wanted: Callable[[str], bool]) -> ChangedFiles:
        """What was added, changed or removed, as far as `wanted` says so of its absolute path."""
        ...


Purpose = Literal["solve", "grade"]
"""The stage that a workspace serves. Variables that the user passes to the agent do not reach the grader."""


class Stream(Protocol):
    """A connection. Both raise OSError when it is broken."""

    async def receive(self) -> bytes:
        """The next bytes; empty at the end."""
        ...

    async def send(self, content: bytes) -> None: ...


class ModelAccess(Protocol):
    """How the programs of one attempt reach their model."""

    @property
    def problem(self) -> Failed | None:
        """Why a call to the model failed, if that was no fault of the agent."""
        ...

    async def serve(self, stream: Stream) -> None:
        """Speak HTTP on one connection, until either side ends it. Any error ends this connection only."""
        ...


@dataclass(frozen=True, slots=True)
class WorkspaceSpec:
    """The request for a workspace."""

    job: Job
    """The attempt. Its limits say how long the workspace may be needed."""
    purpose: Purpose
    network: str = "none"
    """`none`, `model`, `allowlist`, or a network that this kind of workspace knows."""
    hosts: tuple[str, ...] = ()
    """Where `network` is `allowlist`: what programs may reach, by a proxy that lasts as long as the workspace."""
    memory: int = 0
    """The limit in bytes, 0 for none. Exit tells whether a process was killed for lack of it."""
    cpus: float = 0.0
    """The largest number of CPUs, 0 for no limit."""
    disk: int | None = None
    """Bytes that it may write; None where only the size of the shared disk is a limit."""
    model: ModelAccess | None = None
    """The model that commands may ask, in any network."""

    @property
    def policy(self) -> NetworkPolicy:
        return NetworkPolicy(self.network, self.hosts)

    @property
    def environment(self) -> Environment:
        """What the workspace is made of."""
        verifier = _verifier_of(self.job.instance) if self.purpose == "grade" else None
        return verifier or self.job.instance


def environments_of(instance: Instance) -> dict[str, Environment]:
    """What the workspaces of an instance are made of, by names for messages."""
    environments: dict[str, Environment] = {f"the image of {instance.id}": instance}
    if (verifier := _verifier_of(instance)) is not None:
        environments[f"the verifier's image of {instance.id}"] = verifier
    for name, part in instance.parts.items():
        if (verifier := _verifier_of(part)) is not None:
            environments[f"the verifier's image of {instance.id}, step {name}"] = verifier
    return environments


def _verifier_of(instance: Instance) -> Environment | None:
    """The environment of its verifier, which has the same image unless it names one."""
    verifier = instance.verifier
    if verifier is None or verifier.image is not None or verifier.build is not None:
        return verifier
    return structs.replace(verifier, image=instance.image, build=instance.build)


@dataclass(frozen=True, slots=True)
class RunScope:
    """The facts about a run that its workspaces need."""

    run_id: str
    """The name of the run, to label containers and the like."""
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

    def open(self, spec: WorkspaceSpec) -> AbstractAsyncContextManager[Workspace]:
        """Make a fresh workspace, and take it away at the end, also after a failure or a cancellation.

        Many are open at once. Entering takes place within `timeouts.open`; leaving is never waited for long.
        """
        ...

    async def missing_images(self, instances: Iterable[Instance]) -> Mapping[str, str]:
        """Images that these instances need and that cannot be had, each with the reason.

        Called once, before any instance starts: any image named here ends the command. One whose registry cannot be
        asked counts as there. A kind of workspace without images returns nothing.
        """
        ...


class Agent(Protocol):
    """The agent under evaluation. One object serves all attempts of a run, many of them at once."""

    async def solve(self, job: Job, workspace: Workspace, meter: Meter) -> None:
        """Work on `job.instance` in the workspace, until there is nothing more to do.

        The state it leaves there is the answer, which is collected even if the deadline cuts this short, as a
        cancellation. Tokens and money go to `meter` as they are spent, so that they count whatever happens.
        `job.log` takes the agent's output, `job.folder` other files to keep, `job.scratch` temporary ones. Raise Failed
        for a failure with a kind: "agent" is its own fault and final.
        """
        ...


@runtime_checkable
class AsksModel(Protocol):
    """An agent whose programs in the workspace ask a model."""

    def model_access(self, job: Job, meter: Meter) -> AbstractAsyncContextManager[ModelAccess | None]:
        """For one try, from before its workspace opens until it is closed."""
        ...


@runtime_checkable
class Lasting(Protocol):
    """A part that holds something open, like connections, as long as a run goes on."""

    def lasting(self) -> AbstractAsyncContextManager[None]:
        """A context around all attempts. It is entered for an agent that has this member."""
        ...


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that a model may call."""

    name: str
    description: str
    """Its purpose, for the model, and when to use it."""
    parameters: Mapping[str, Any]
    """A JSON Schema of its arguments."""


@dataclass(frozen=True, slots=True)
class ToolUse:
    """A call that a model asks for."""

    id: str
    """The id that the message with the tool's result refers to."""
    name: str
    """The name of a tool, not always one that was offered."""
    arguments: str
    """The text that the model wrote, which should be JSON."""


Message = Mapping[str, Any]
"""A message as the chat completions API writes it."""


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer of a model."""

    message: Message
    """The answer as it goes into the next call's messages."""
    text: str
    """Its text, without reasoning and tool calls."""
    tool_uses: Sequence[ToolUse]
    usage: Usage
    """What this call cost. It is in the attempt's meter already."""
    finish_reason: str = ""
    reasoning: str = ""
    model: str = ""
    """The model as the endpoint names it, which may be more exact than what was asked for."""


class Conversation(Protocol):
    """The calls of one attempt."""

    async def complete(self, messages: Sequence[Message], tools: Sequence[Tool]) -> Completion:
        """Ask the model, and count what it costs.

        `messages` are the whole conversation so far. Passing trouble is waited out and tried again in here; what
        remains is raised as Failed, with a kind that says whose fault it is. A spent budget is one of these.
        """
        ...


IMAGES = "images"
"""In the folder of an attempt, where its benchmark has fetched images of the statement: copies of them.

`images.json` lists them in order: `url`, and `file` with the name of the copy, or `missing` with a reason.
"""


class ModelEndpoint(Lasting, Protocol):
    """A model that agents on this machine ask, shared by all attempts of a run."""

    @property
    def name(self) -> str:
        """As `model.name` says."""
        ...

    def conversation(self, job: Job, meter: Meter) -> AbstractAsyncContextManager[Conversation]:
        """The calls of one attempt, counted by its meter. All conversations share connections and rate limits."""
        ...

    def access(self, job: Job, meter: Meter) -> AbstractAsyncContextManager[ModelAccess]:
        """Let an agent in a workspace ask the model, without a key, and count what it does."""
        ...


class Benchmark(Protocol):
    """A set of instances, and the judgement of answers to them. One object serves all attempts, many at once.

    For an attempt, the order is prepare, the agent, collect, and in a fresh workspace grade. A grading that failed is
    tried again with the same answer, by grade alone.
    """

    @property
    def grader_version(self) -> str:
        """What verdicts depend on besides answer and instance. Raises EvalkitError where nothing here can grade.

        A verdict of another version counts as outdated: `evalkit grade` judges the answer again.
        """
        ...

    def load(self) -> Iterable[Instance]:
        """All instances of the data set, in its order, each with an id of its own. Selection is not its business.

        Raises DatasetError for what cannot be read. `Instance.digest` is to change when the question or its tests do,
        and `Instance.data` may hold whatever the other members need.
        """
        ...

    def grader_network(self, instance: Instance) -> str | NetworkPolicy:
        """The network that the grader needs, or a policy with hosts; `none` unless the benchmark says otherwise."""
        ...

    async def prepare(self, job: Job, workspace: Workspace) -> None:
        """Make a new workspace what the agent should find, and take out what it must not find.

        Time runs by `timeouts.open`. What cannot be prepared is Failed("setup"), which is tried again if it `may_pass`.
        """
        ...

    async def apply_solution(self, job: Job, workspace: Workspace) -> None:
        """Put the reference solution in place, as the `gold` agent does. Failed("setup") where there is none."""
        ...

    async def collect(self, job: Job, workspace: Workspace) -> Answer:
        """Bring out what the agent has done, also if its time was up in the middle of something.

        Files go to `job.folder`, with their paths in the answer relative to `job.run_folder`. `empty` says that there
        is nothing to grade. Where the agent has made this impossible, raise Failed("agent"), which is not tried again.
        """
        ...

    async def grade(self, job: Job, answer: Answer, workspace: Workspace) -> Grade:
        """Judge an answer, in a fresh workspace unless the instance grades in place.

        A verdict is about the answer: where tests could not run, raise Failed with "grader", "oom" or another kind,
        and never `unresolved`. What the tests print belongs into `test_output.txt`, and the reasons for the verdict
        into `report.json`, both in `job.folder`.
        """
        ...


@runtime_checkable
class Recovering(Protocol):
    """A benchmark whose answers can still be had where the agent has broken what they are collected with.

    After BrokenRepository, a fresh workspace is opened and prepared, and collected from once it was brought over.
    """

    async def bring_over(self, job: Job, broken: Workspace, fresh: Workspace) -> None:
        """Put what the agent has left into a fresh workspace. Raises Uncollectable where nothing is left."""
        ...


@runtime_checkable
class InParts(Protocol):
    """A benchmark with instances of several parts. The members of Benchmark get each part as the instance of its job.

    An instance of parts is prepared as a whole; then each part is prepared, collected and graded.
    """

    def goes_on(self, job: Job, grade: Grade) -> bool:
        """Whether the next part is worked on, after this one got this grade."""
        ...

    def combine(self, job: Job, grades: Mapping[str, Grade]) -> Grade:
        """The grade of the whole, from those of the parts that were worked on."""
        ...


@runtime_checkable
class OnDemand(Protocol):
    """A benchmark of a large data set: what `load` gives are outlines, and an instance is read when it is needed.

    An outline has everything but `statement` and `images`, and its `data` says how to read the rest. Selection, images
    and `Workspaces` see outlines; agents and all other members of the benchmark get the whole instance.
    """

    def read_instance(self, outline: Instance) -> Instance:
        """The outline with its statement, images and data. Called in a thread, before each try.

        Raises DatasetError, which ends the run, where the data set is no longer the one that was loaded.
        """
        ...


@runtime_checkable
class LogJudge(Protocol):
    """A benchmark that can judge the recorded log of its tests, without a workspace."""

    def judge_log(self, instance: Instance, folder: Path) -> Grade:
        """Judge `test_output.txt` of a folder and write its `report.json`. Raises Failed where there is no verdict."""
        ...


@runtime_checkable
class ReferencePatches(Protocol):
    """A benchmark whose reference solutions are patches, which can be graded like any other."""

    def reference_patch(self, instance: Instance) -> bytes:
        """The patch, for `git apply`; empty where this instance has none."""
        ...


class Critic(Protocol):
    """Decides whether an attempt that did not fail is good enough to make no other."""

    def __call__(self, result: Result, /) -> bool:
        """Called once for each result, before it is written. An exception makes the attempt an error."""
        ...


class Observer(Protocol):
    """Is told what happens in a run, as it happens. It decides nothing, and what it raises is only logged.

    It is called on the loop that the run is on, so it must return at once.
    """

    def entered(self, instance_id: str, attempt: int, stage: str) -> None:
        """A stage begins: open, prepare, solve, collect or grade."""
        ...

    def retrying(self, instance_id: str, attempt: int, failure: Failure, delay: float) -> None:
        """A try failed, and another one of the same attempt follows after so many seconds."""
        ...

    def finished(self, result: Result) -> None:
        """An attempt has its final result, which is on disk."""
        ...

    def added(self, instance_id: str, attempt: int) -> None:
        """One more attempt follows from a result."""
        ...

    def held(self, reason: str | None) -> None:
        """Nothing new starts for this reason; None when the hold is over."""
        ...
