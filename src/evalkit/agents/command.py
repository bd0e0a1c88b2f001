"""Runs any program as the agent, inside the workspace.

The file named by EVALKIT_STATEMENT_FILE holds the statement, as does EVALKIT_STATEMENT if it is short enough for an
environment variable. Files of this machine that it works with are in the folder `files` beside it, see `agent_files`.
The program may write a trajectory to the file named by EVALKIT_TRAJECTORY, and its usage, with
the keys of a result's `usage`, to the file named by EVALKIT_USAGE.

Where `model.name` and `model.base_url` are set, the model EVALKIT_MODEL_NAME is at EVALKIT_MODEL_URL, in any network.
It needs no key, and the usage is counted on the way. Other models of the run can be asked there by their names:
that of [model.small] is in EVALKIT_SMALL_MODEL_NAME.

Where the task has MCP servers, the file named by EVALKIT_MCP_SERVERS describes them, and its skills are in the folder
EVALKIT_SKILLS_DIR. Presets get both in the agent's own way.

EVALKIT_SECONDS is the time that the program has, EVALKIT_DEADLINE its end in seconds since 1970.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import anyio
import msgspec

from evalkit import masking, plugins
from evalkit.agents import mcp_config, preset_options
from evalkit.agents.agent_files import AgentFiles, find_files
from evalkit.agents.deadline import Deadline
from evalkit.agents.other_models import tell_what_is_not_asked, variable_of_model
from evalkit.agents.presets import NamedPreset, OptionName, Preset, find_preset
from evalkit.config import Config
from evalkit.domain import outputs
from evalkit.domain.budget import BudgetSpent
from evalkit.domain.failures import Ambiguous, Failed, WorkspaceEnded
from evalkit.domain.mcp import McpServer, move_headers, variables_in
from evalkit.domain.missing_programs import describe_missing
from evalkit.domain.outputs import TooLarge
from evalkit.domain.protocols import Benchmark, Exit, ModelAccess, ModelEndpoint, Places, Workspace
from evalkit.domain.records import Instance, Job, Meter, Usage
from evalkit.errors import ConfigError
from evalkit.logs import logger
from evalkit.system.threads import in_thread

TRAJECTORY = "trajectory.jsonl"
USAGE = "EVALKIT_USAGE"

_LONGEST_VARIABLE = 100_000
_PICK_UP_SECONDS = 30.0
_NOT_FOUND = 127
_VERSION = re.compile(r"\d+(?:\.\d+)+[\w.+-]*")
_SHELLS = ("sh", "/bin/sh")  # every workspace has one


@dataclass(frozen=True, slots=True)
class CommandAgent:
    files: AgentFiles
    named: NamedPreset | None = None
    model: ModelEndpoint | None = None
    options: Mapping[OptionName, str] = field(default_factory=dict)
    """Those that are set."""
    other_models: Mapping[str, str] = field(default_factory=dict)
    """The names of the other models that it may ask, by what the config calls them."""

    @property
    def preset(self) -> Preset | None:
        return self.named.preset if self.named else None

    @property
    def program(self) -> str | None:
        """The program that a workspace must have; None where it comes along, is always there, or only a shell knows."""
        program = self.files.program
        return None if program is None or program in _SHELLS or program.startswith("$") else program

    @property
    def tells_cost(self) -> bool:
        return self.model is not None or self.files.mention(USAGE)

    def passes_over(self, instance: Instance) -> Iterable[str]:
        if self.preset is None:
            return  # whatever the program is, it can read what its variables name
        if instance.mcp_servers and self.preset.mcp == "none":
            yield "mcp_servers"
        if instance.skills_dir and not self.preset.skills:
            yield "skills_dir"

    def lasting(self) -> AbstractAsyncContextManager[None]:
        return self.model.lasting() if self.model else nullcontext()

    async def solve(self, job: Job, workspace: Workspace, meter: Meter) -> None:
        place = workspace.places.logs / "agent"
        servers, headers = _servers_of(job.instance)
        statement = job.instance.statement
        if servers:
            await workspace.write(mcp_config.as_file(servers), place / mcp_config.FILE)
            statement += mcp_config.in_words(servers) if self.preset and self.preset.mcp == "words" else ""
        await workspace.write(statement.encode("utf-8", "replace"), place / "statement.md")
        argv = await self.files.bring(workspace, place)
        env = _environment(job, statement, place) | headers | _name_tools(job.instance, workspace.places)
        env |= Deadline.of(job).environment() | ({"EVALKIT_MODEL_NAME": self.model.name} if self.model else {})
        env |= {f"EVALKIT_{name.upper()}": value for name, value in self.options.items()}
        env |= {variable_of_model(role): name for role, name in self.other_models.items()}
        if self.preset:
            env["EVALKIT_MCP_JSON"] = mcp_config.as_json(self.preset.mcp, servers)
        await self._require_version(workspace, env)
        try:
            end = await workspace.exec(
                self._wrap(argv, job.instance, servers, place),
                env=env,
                stdout=job.log,
                stderr=job.log,
                asks_model=self.model is not None,
            )
        finally:
            # Usage and trajectory count even if its time is up.
            with anyio.move_on_after(_PICK_UP_SECONDS, shield=True):
                await self._pick_up(job, workspace, place, meter)
        self._judge(end, workspace)
        self._require_known_cost(meter)

    @asynccontextmanager
    async def model_access(self, job: Job, meter: Meter) -> AsyncIterator[ModelAccess | None]:
        if self.model is None:
            yield None
            return
        async with self.model.access(job, meter) as access:
            yield access

    def _wrap(
        self, argv: tuple[str, ...], instance: Instance, servers: Sequence[McpServer], place: PurePosixPath
    ) -> tuple[str, ...]:
        if self.preset is None:
            return argv
        more = mcp_config.as_arguments(self.preset.mcp, servers, place / mcp_config.FILE) if servers else ()
        options = self.preset.words_for(self.options)
        return self.preset.wrap(argv, more, has_skills=bool(instance.skills_dir), options=options)

    async def _require_version(self, workspace: Workspace, env: Mapping[str, str]) -> None:
        """Refuse to measure another version than the one that is asked for."""
        if self.named is None or not self.named.version:
            return
        end = await workspace.exec(self.named.preset.ask_version(), env=env)
        if end.code == _NOT_FOUND or end.workspace_ended:
            return  # and so does the agent itself, which says more
        found = _VERSION.findall(end.tail)
        if self.named.version not in found:
            raise Failed(
                "setup",
                f"agent.preset asks for {self.named.name}@{self.named.version}, and the workspace has"
                f" {found[0] if found else 'one that does not say its version'}",
                may_pass=False,
            )

    def _judge(self, end: Exit, workspace: Workspace) -> None:
        """Raise a failure, unless the agent ended by itself or has spent the budget of its attempt."""
        problem = workspace.model.problem if workspace.model else None
        name = self.named.name if self.named else self.files.argv[0]
        if isinstance(problem, BudgetSpent) and problem.level == "attempt":
            logger.info("the agent was stopped: %s", problem)
            return
        if problem is not None:
            raise problem
        if end.workspace_ended:
            raise WorkspaceEnded(name)
        if end.code != 0 and end.lacked_processes:
            raise Ambiguous("workspace", f"{name} could not start a process: there were too many")
        if end.code != 0:
            last_line = end.tail.strip().rpartition("\n")[2]
            if self.program and end.code == _NOT_FOUND and last_line.endswith(f" {self.program}: not found"):
                raise Failed("agent", str(describe_missing(self.program, workspace)))
            brought = self.files.inside.get(0)
            if brought is not None and end.code == _NOT_FOUND and _is_not_found(brought, last_line):
                raise Failed("agent", f"{name}: the interpreter in its first line is not in the workspace: {last_line}")
            raise Failed("agent", f"{name} exited with status {end.code}: {last_line or 'it printed nothing'}")

    def _require_known_cost(self, meter: Meter) -> None:
        if self.model is None and meter.usage.cost_usd is None and meter.budget.left_usd is not None:
            raise Failed(
                "unknown_cost",
                f"a limit in USD cannot be kept: the program did not say in {USAGE} what it spent",
            )

    async def _pick_up(self, job: Job, workspace: Workspace, place: PurePosixPath, meter: Meter) -> None:
        try:
            trajectory = self.preset.trajectory if self.preset else TRAJECTORY
            draft = job.scratch / trajectory
            await workspace.read(place / trajectory, draft, outputs.TRAJECTORY)
            await in_thread(_keep_masked, draft, job.folder / trajectory)
        except TooLarge as error:  # not part of the answer, so the attempt goes on
            logger.warning("%s: it is left out", error)
        except FileNotFoundError:
            pass
        if self.model is not None:
            return  # counted on the way to the model
        usage = Usage(cost_usd=None)
        try:
            with suppress(FileNotFoundError):
                await workspace.read(place / "usage.json", job.scratch / "usage.json", outputs.SMALL_FILE)
                usage = _read_usage(job.scratch / "usage.json")
        except TooLarge as error:
            logger.warning("the usage file of the agent cannot be read: %s", error)
        finally:
            meter.add(usage)


def _is_not_found(file: str, line: str) -> bool:
    """Whether a shell says so of a file that was brought along."""
    return re.search(rf"/{re.escape(file)}: (not found|No such file or directory|.*bad interpreter)", line) is not None


def _servers_of(instance: Instance) -> tuple[Sequence[McpServer], dict[str, str]]:
    """The MCP servers, and the variables that their headers are in. The secrets in these are masked from now on."""
    masking.protect_variables(variables_in(instance.mcp_servers))
    try:
        return move_headers(instance.mcp_servers, os.environ)
    except KeyError as missing:
        problem = f"a header of an MCP server asks for the environment variable {missing.args[0]}, which is not set"
        raise Failed("setup", problem, may_pass=False) from None
    except ValueError as error:
        raise Failed("setup", str(error), may_pass=False) from None


def _environment(job: Job, statement: str, place: PurePosixPath) -> dict[str, str]:
    statement = statement.encode("utf-8", "replace").decode().replace("\0", "")
    environment = {
        "EVALKIT_INSTANCE_ID": job.instance.id.encode("utf-8", "replace").decode().replace("\0", ""),
        "EVALKIT_ATTEMPT": str(job.attempt),
        "EVALKIT_STATEMENT_FILE": str(place / "statement.md"),
        "EVALKIT_TRAJECTORY": str(place / TRAJECTORY),
        USAGE: str(place / "usage.json"),
    }
    if len(statement.encode()) <= _LONGEST_VARIABLE:
        environment["EVALKIT_STATEMENT"] = statement
    return environment


def _name_tools(instance: Instance, places: Places) -> dict[str, str]:
    """The variables that say where servers are described, and where skills are."""
    named = {"EVALKIT_MCP_SERVERS": str(places.logs / "agent" / mcp_config.FILE)} if instance.mcp_servers else {}
    if instance.skills_dir:
        named["EVALKIT_SKILLS_DIR"] = str(places.work / instance.skills_dir)
    return named


def _keep_masked(draft: Path, target: Path) -> None:
    """Keep a file of the workspace with the run, where no secret of it is ever written, not even for a moment."""
    masking.mask_file(draft)
    shutil.move(draft, target)


class _ToldUsage(Usage, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Usage as the agent reports it. Unknown fields are refused, so that its author notices the mistake."""


def _read_usage(path: Path) -> Usage:
    """The usage that the agent reports. A malformed file leaves the cost unknown."""
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(), type=_ToldUsage, strict=False)
    except (OSError, ValueError) as error:
        logger.warning("the usage file of the agent cannot be read: %s", error)
        return Usage(cost_usd=None)


def create(config: Config, _benchmark: Benchmark) -> CommandAgent:
    named = find_preset(config.agent.preset) if config.agent.preset else None
    argv = config.agent.command or (named.preset.argv if named else ())
    options = preset_options.options_of(config.agent)
    if named:
        preset_options.require_taken(named, options)
    if not argv:
        raise ConfigError(
            "the command agent needs agent.command, or agent.preset",
            hint='for example --set agent.command=\'["my-agent", "--headless"]\'',
        )
    model: ModelEndpoint | None = None
    _require_countable(config)
    others: dict[str, str] = {}
    if config.has_model:
        model = plugins.load("models", config.model.api)(config)
        others = {role: other.name for role, other in config.model.others.items() if other.name}
    if named:
        tell_what_is_not_asked(named, others)
    files = find_files(argv, config.agent.files, is_local=config.workspace_kind == "local")
    return CommandAgent(files, named, model, options, others)


def _require_countable(config: Config) -> None:
    """Refuse limits on spending that evalkit has no way to count."""
    if config.has_model:
        return
    limits = {"agent.max_cost_usd": config.agent.max_cost_usd, "agent.max_tokens": config.agent.max_tokens}
    if config.agent.preset:
        limits |= config.limits_usd
    for key, limit in limits.items():
        if limit:
            raise ConfigError(
                f"{key} cannot be kept: what an agent spends in a workspace is counted on its way to the model only",
                hint="set model.name and model.base_url, as for workspace.network=model; or leave the limit out",
            )
