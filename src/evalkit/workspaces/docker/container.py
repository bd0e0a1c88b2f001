"""One container: its isolation, its start, and its end."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import anyio

from evalkit.containers.api import REMOVE_CONTAINER, Client
from evalkit.containers.connection import EngineError, Exchange, Refused, Unreachable
from evalkit.containers.pull import Image
from evalkit.domain.failures import Failed
from evalkit.domain.protocols import Places, WorkspaceSpec
from evalkit.domain.records import Job, Resources
from evalkit.domain.results import share
from evalkit.logs import logger
from evalkit.workspaces.disk_watch import occupied
from evalkit.workspaces.docker import supervisor
from evalkit.workspaces.docker.container_network import network_of_engine
from evalkit.workspaces.docker.isolation import Isolation
from evalkit.workspaces.docker.supervisor import Supervisor, SupervisorGone

# Package managers and test suites that run as root inside need these: to own, read and hand over files of other users,
# to become another user, and to end its processes. None of them reaches the settings of the network or the kernel:
# https://man7.org/linux/man-pages/man7/capabilities.7.html
CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID")
PROCESSES = 2048
_ROOT = PurePosixPath("/")
_NOT_FOUND, _CONFLICT = 404, 409
_ANSWER_SECONDS = 1.0
_COUNT_SECONDS = 10.0
_READY_SECONDS = 60.0
_REMOVE_SECONDS = 8.0
_REMOVE_TRIES = 3
_NAMES_TRIED = 5
_SERVER_ERROR = 500
_LOOKS = 5
_PAUSE = 0.2
_SHARES_OF_ONE, _LEAST_SHARES, _MOST_SHARES = 1024, 2, 1 << 18
_GRACE_OF_ENGINE = 1
_PARTS_OF_NAME = re.compile(r"[^a-zA-Z0-9_.-]+")


def describe(
    spec: WorkspaceSpec, image: Image, labels: Mapping[str, str], cpus: int, isolation: Isolation
) -> dict[str, Any]:
    """The body of the request to create a container.

    https://docs.docker.com/reference/api/engine/version/v1.41/
    """
    host = {
        **isolation.host_config(),
        "Init": True,
        "CapDrop": ["ALL"],
        "CapAdd": list(CAPABILITIES),
        "PidsLimit": PROCESSES,
        "Memory": spec.memory,
        "MemorySwap": spec.memory,
        "MemoryReservation": min(spec.reserved, spec.memory),
        "NanoCpus": round(min(spec.cpus, cpus) * 1e9),
        "CpuShares": _count_shares(spec.cpu_shares),
        "NetworkMode": network_of_engine(spec.policy),
        "LogConfig": {"Type": "none"},
        **({"DeviceRequests": [_request_gpus(spec.environment.gpus)]} if spec.environment.gpus else {}),
        # The engine makes the image's volumes in any case; listed here, they get our labels and can be swept.
        "Mounts": [
            {"Type": "volume", "Target": place, "VolumeOptions": {"Labels": dict(labels)}} for place in image.volumes
        ],
    }
    return {
        "Image": image.id,
        "Entrypoint": list(supervisor.COMMAND),
        "Cmd": [],
        # Root instead of the image's user, to be able to end the processes of every user.
        "User": "0:0",
        "WorkingDir": "/",
        "OpenStdin": True,
        "StdinOnce": True,
        "AttachStdin": True,
        "AttachStdout": True,
        "StopTimeout": _GRACE_OF_ENGINE,
        "Labels": labels,
        "HostConfig": host,
    }


def _count_shares(cpus: float) -> int:
    """1024 for one CPU, which is what 0 means: https://docs.docker.com/engine/containers/resource_constraints/#cpu"""
    return min(max(round(cpus * _SHARES_OF_ONE), _LEAST_SHARES), _MOST_SHARES) if cpus else 0


def _request_gpus(count: int) -> dict[str, Any]:
    """https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Container/operation/ContainerCreate"""
    return {"Driver": "nvidia", "Count": count, "Capabilities": [["gpu"]]}


def name_for(job: Job) -> str:
    slug = _PARTS_OF_NAME.sub("-", job.instance.id)[-40:].strip("-_.") or "instance"
    return f"evalkit-{slug}-{job.attempt}-{secrets.token_hex(4)}"


@dataclass(frozen=True, slots=True)
class Condition:
    """The condition of a container after a command."""

    lacked_memory: bool = False
    """The kernel killed a process for lack of memory."""
    lacked_processes: bool = False
    """The kernel refused to make a process, because there were too many."""
    is_alive: bool = True


@dataclass(slots=True)
class Container:
    """A container from its creation to its removal. Its files outlive its processes: it can be started again."""

    client: Client
    places: Places
    lifetime: float
    ends_commands: bool = True
    """Whether the engine sees commands end with it; with some runtimes, it does not."""
    needs_work: bool = False
    """Whether the work folder has to be in the image. Otherwise it is made."""
    name: str = ""
    _supervisor: Supervisor | None = None
    _input: Exchange | None = None
    starts: int = 0
    """How often it was started. Commands from before a restart remember a lower number."""
    _kills: int = 0
    _refused: int = 0
    _may_exist: bool = False
    _is_ours: bool = False
    """Whether the container of this name is known to be ours."""
    _labels: Mapping[str, str] = field(default_factory=dict)
    _starting: anyio.Lock = field(default_factory=anyio.Lock)

    async def create(self, job: Job, body: Mapping[str, Any], suffix: str = "") -> None:
        """Create it under a unique name. If a name is taken, another one is tried."""
        self._labels = body["Labels"]
        for _ in range(_NAMES_TRIED):
            self.name = f"{name_for(job)}{suffix}"
            self._may_exist = True  # from here on, even if no answer arrives
            try:
                await self.client.call(self.client.patient.create_container_from_config, dict(body), self.name)
            except Refused as error:
                self._may_exist = error.status >= _SERVER_ERROR
                if error.status != _CONFLICT:
                    raise
            else:
                self._is_ours = True
                return
        raise Failed("workspace", f"no free name for a container, the last one tried was {self.name}")

    async def start(self) -> None:
        """Start it with its supervisor. The supervisor's connection is opened first, so nothing can outlive it."""
        supervisor = await self._attach()
        try:
            await self.client.call(self.client.patient.start, self.name)
            await self._begin(supervisor)
        except BaseException:
            await supervisor.aclose()
            raise

    async def start_alone(self, *, with_input: bool) -> None:
        """Start it without a supervisor. Its input, if it has one, is open until it is removed, or evalkit ends."""
        if with_input:
            self._input = await self.client.upgrade(f"/containers/{self.name}/attach?stream=1&stdin=1")
        await self.client.call(self.client.patient.start, self.name)

    async def revive(self) -> bool:
        """Start it again if a process inside has ended it. Returns whether that was the case."""
        async with self._starting:
            has_ended = not await self.is_running()
            if has_ended:
                await self._restart()
        return has_ended

    async def end_processes(self) -> None:
        """Kill everything in it, within a second; if the supervisor cannot, by a restart.

        Root inside can stop the supervisor and answer in its place, so its word is checked with the engine.
        """
        try:
            with anyio.fail_after(_ANSWER_SECONDS):
                await self._living_supervisor().end_all()
        except (SupervisorGone, TimeoutError):
            await self._restart_if_running()
            return
        for pause in (0.0, _PAUSE):  # those that were killed are buried a moment later
            await anyio.sleep(pause)
            if await self._is_quiet():
                return
        logger.info("container %s: it is not certain that all in it has ended", self.name)
        await self._restart_if_running()

    async def _is_quiet(self) -> bool:
        """Whether the engine sees nothing in it but the supervisor. Under gVisor, it sees no process of it at all."""
        try:
            listed = await self.client.call(self.client.processes_in, self.client.api, self.name)
        except EngineError as error:
            logger.info("container %s: its processes are not listed: %s", self.name, error)
            return True
        return supervisor.is_alone(listed.first, listed.parents)

    async def end_session(self, leader: int) -> None:
        """Kill a process and what stayed in its session; if the supervisor cannot, everything by a restart."""
        try:
            with anyio.fail_after(_ANSWER_SECONDS):
                await self._living_supervisor().end_session(leader)
        except (SupervisorGone, TimeoutError):
            await self._restart_if_running()

    async def restart(self) -> None:
        async with self._starting:
            await self._restart()

    async def exists(self) -> bool:
        try:
            await self.state()
        except Refused as error:
            if error.status != _NOT_FOUND:
                raise
            return False
        return True

    async def wait_for_end(self) -> bool:
        """Wait until it does not run. False if the engine goes away meanwhile."""
        answer = b""
        try:
            waiting = await self.client.follow(f"/containers/{self.name}/wait?condition=not-running", {})
        except Refused as error:
            return error.status == _NOT_FOUND
        except Unreachable:
            return False
        try:
            while block := await waiting.receive():
                answer += block
        finally:
            await waiting.aclose()
        return bool(answer)

    async def look(self) -> Condition:
        """Its condition: what it has lacked since the last call, and whether it is alive."""
        try:
            with anyio.fail_after(_COUNT_SECONDS):
                kills, refused = await self._living_supervisor().count()
        except SupervisorGone:
            return Condition(lacked_memory=bool((await self._ended())["OOMKilled"]), is_alive=False)
        except TimeoutError:
            return Condition()
        found = Condition(kills > self._kills, refused > self._refused)
        self._kills, self._refused = kills, refused
        return found

    async def measure(self, memory: int) -> Resources:
        """What its processes took since its last start, with this limit of memory."""
        try:
            kills, numbers = await self._living_supervisor().measure()
        except SupervisorGone:
            killed = bool((await self.state())["OOMKilled"])
            return Resources(memory_limit=memory or None, oom_kills=1 if killed else None)
        used, periods, stopped = numbers.cpu_microseconds, numbers.periods, numbers.stopped_periods
        return Resources(
            memory_peak=numbers.memory_peak,
            memory_limit=memory or None,
            cpu_seconds=None if used is None else used / 1e6,
            cpu_periods=periods,
            throttled=None if stopped is None or periods is None else share(stopped, periods),
            oom_kills=kills,
            disk_written=numbers.written,
        )

    async def count_written(self) -> int:
        """The bytes in its writable layer, measured by the engine, and in its volumes if they are on this machine."""
        try:
            found = await self.client.call(
                self.client.patient.containers, all=True, size=True, filters={"name": f"^/{self.name}$"}
            )
        except EngineError as error:
            raise Failed("engine", str(error)) from error
        total = sum(int(each.get("SizeRw") or 0) for each in found)
        if self.client.root is not None:
            for mount in (mount for each in found for mount in each.get("Mounts") or ()):
                if mount.get("Type") == "volume" and mount.get("RW", True):
                    total += await occupied(Path(mount["Source"]))
        return total

    async def remove(self) -> None:
        """Remove it by force, with its volumes: once, in any state, within a time limit."""
        if not self._may_exist:
            return
        self._may_exist = False
        with anyio.move_on_after(_REMOVE_SECONDS, shield=True):
            if await self._try_to_remove():
                return
        if self._is_ours:
            self.client.left[self.name] = REMOVE_CONTAINER
        logger.warning(
            "container %s could not be removed: it ends by itself, and the next command sweeps it", self.name
        )

    async def _try_to_remove(self) -> bool:
        try:
            for _ in range(_REMOVE_TRIES):
                try:
                    if not self._is_ours and not await self._was_made_here():
                        return True
                    await self.client.call(self.client.closing.remove_container, self.name, force=True, v=True)
                except Refused as error:
                    if error.status in (_NOT_FOUND, _CONFLICT):  # 409: the engine is removing it already
                        return True
                    await anyio.sleep(_PAUSE)
                except Unreachable:
                    if not await self.client.is_back():
                        return False
                else:
                    return True
            return False
        finally:
            for held in (self._supervisor, self._input):
                if held is not None:
                    await held.aclose()

    async def _was_made_here(self) -> bool:
        facts = await self.client.call(self.client.closing.inspect_container, self.name)
        labels = facts["Config"]["Labels"] or {}
        return all(labels.get(name) == value for name, value in self._labels.items())

    async def _attach(self) -> Supervisor:
        return Supervisor(await self.client.upgrade(f"/containers/{self.name}/attach?stream=1&stdin=1&stdout=1"))

    async def _begin(self, supervisor: Supervisor) -> None:
        places = self.places
        must_be_there = self.needs_work and self.starts == 0  # later, the agent may have removed it
        made = () if must_be_there else (places.work,)
        folders = [*made, places.tests, places.solution, places.logs]
        try:
            with anyio.fail_after(_READY_SECONDS):
                work = await supervisor.begin(
                    folders=list(map(str, folders)),
                    for_all=list(map(str, places.log_folders)),
                    work=str(places.work),
                    lifetime=self.lifetime,
                )
        except SupervisorGone:
            state = await self._ended()
            if state["OOMKilled"]:
                raise Failed("oom", "the container had not even the memory to start") from None
            raise Failed(
                "workspace",
                f"the container ended as it started, with status {state['ExitCode']}: has its image a /bin/sh?",
            ) from None
        except TimeoutError:
            raise Failed("workspace", f"the container did not come up within {_READY_SECONDS:g} s") from None
        if must_be_there and PurePosixPath(work) == _ROOT != places.work:
            raise Failed(
                "setup", f"the image has no folder {places.work}, which is to be the work folder", may_pass=False
            )
        if work != str(places.work):
            self.places = replace(places, work=PurePosixPath(work))
        self._supervisor, self._kills, self._refused = supervisor, 0, 0
        self.starts += 1

    async def _restart(self) -> None:
        """Stop and start by two calls: after the engine's own restart, it would run for a moment without supervisor."""
        logger.info("container %s is started again", self.name)
        await self.client.call(self.client.patient.stop, self.name, timeout=0)
        if self._supervisor is not None:
            await self._supervisor.aclose()
        await self.start()

    async def _restart_if_running(self) -> None:
        async with self._starting:
            if await self.is_running():
                await self._restart()

    def _living_supervisor(self) -> Supervisor:
        if self._supervisor is None:
            raise SupervisorGone
        return self._supervisor

    async def inspect(self) -> Any:
        return await self.client.call(self.client.closing.inspect_container, self.name)

    async def state(self) -> Any:
        return (await self.inspect())["State"]

    async def is_running(self) -> bool:
        return bool((await self.state())["Running"])

    async def _ended(self) -> Any:
        """Its state once it has ended, which the engine notices a moment later than we do."""
        for _ in range(_LOOKS):
            state = await self.state()
            if not state["Running"]:
                break
            await anyio.sleep(_PAUSE)
        return state
