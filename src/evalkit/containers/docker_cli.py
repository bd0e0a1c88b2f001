"""Calls to the engine by Docker's own command, which brings contexts, credentials and builders with it."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import anyio

from evalkit.containers import reference
from evalkit.containers.reference import Pinned
from evalkit.errors import EngineUnavailable
from evalkit.system import processes

_NAMES_AT_ONCE = 200
_NO_THREAD = re.compile(r"^runtime: failed to create new OS thread|^runtime/cgo: pthread_create failed", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """How long calls of Docker's command may take, in seconds."""

    answer: float = 20.0
    probe: float = 60.0
    usage: float = 120.0
    cleanup: float = 600.0


_LIMITS = TimeLimits()


@dataclass(frozen=True, slots=True)
class Said:
    """Exit status and output of a command."""

    code: int
    output: str
    error: str

    @property
    def last_line(self) -> str:
        lines = [line.strip() for line in (self.error or self.output).splitlines() if line.strip()]
        return lines[-1] if lines else f"exit status {self.code}"


async def run(
    argv: Sequence[str], *, environment: Mapping[str, str] | None = None, seconds: float = _LIMITS.answer
) -> Said:
    """Run a command. When it is cancelled or runs out of time, its plugins end with it."""
    with anyio.move_on_after(seconds), TemporaryFile() as output, TemporaryFile() as error:
        given = {**os.environ, **(environment or {})}
        code = await processes.run(argv, env=given, cwd=Path(), stdout=output, stderr=error)
        said = Said(code, _text(output), _text(error))
        if said.code and (number := errno_of_crash(said.error)):
            raise OSError(number, f"{argv[0]} cannot start a thread")
        return said
    return Said(124, "", f"{' '.join(argv[:2])} did not answer within {seconds:g} s")


def errno_of_crash(text: str) -> int | None:
    """EAGAIN where Docker's command could not start a thread: Go's runtime aborts then, and only prints the reason.

    https://github.com/golang/go/blob/master/src/runtime/os_linux.go (newosproc), and runtime/cgo/gcc_libinit.c
    """
    return errno.EAGAIN if _NO_THREAD.search(text) else None


def _text(output: IO[bytes]) -> str:
    output.seek(0)
    return output.read().decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class LocalImages:
    """The images that the engine has, at one moment."""

    ids: Mapping[str, str]
    digests: Mapping[str, str]

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, str]]) -> LocalImages:
        ids, digests = {}, {}
        for row in rows:
            name, tag, digest = row["Repository"], row["Tag"], row["Digest"]
            tagged = f"{name}:{tag}"
            if tag != "<none>":
                ids[tagged] = row["ID"]
            if digest != "<none>":
                digests[tagged] = digest
                ids[f"{name}@{digest}"] = row["ID"]
        return cls(ids, digests)

    def __contains__(self, name: str) -> bool:
        return self._key(reference.parse(name)) in self.ids

    def find(self, name: str) -> Pinned | None:
        wanted = reference.parse(name)
        key = self._key(wanted)
        if key not in self.ids:
            return None
        digest = wanted.digest or self.digests.get(key, "")
        if digest:
            return Pinned(name, digest, f"{wanted.familiar_name}@{digest}")
        return Pinned(name, self.ids[key], name)

    @staticmethod
    def _key(wanted: reference.Reference) -> str:
        return f"{wanted.familiar_name}{'@' + wanted.digest if wanted.digest else ':' + wanted.tag}"


@dataclass(frozen=True)
class Docker:
    """An engine that answers, and the `docker` commands on this machine, the one that reached it first."""

    programs: Sequence[str]
    info: Mapping[str, Any] = field(repr=False)
    limits: TimeLimits = _LIMITS

    @property
    def program(self) -> str:
        return self.programs[0]

    @property
    def architecture(self) -> str:
        """In the words of images (amd64), not the kernel's (x86_64)."""
        name = str(self.info.get("Architecture", ""))
        return {"x86_64": "amd64", "aarch64": "arm64"}.get(name, name)

    @property
    def storage(self) -> Path | None:
        """Where the engine keeps images, if that is on this machine."""
        root = Path(str(self.info.get("DockerRootDir") or "/nowhere"))
        host = os.environ.get("DOCKER_HOST", "unix://")
        return root if host.startswith("unix://") and root.is_dir() else None

    async def ask(self, *words: str) -> Said:
        """Run a command that an engine answers at once, or not at all."""
        return await run([self.program, *words], seconds=self.limits.answer)

    async def answers(self) -> bool:
        return (await self.ask("version", "--format", "{{.Server.Version}}")).code == 0

    async def images(self, label: str | None = None) -> LocalImages:
        chosen = ("--filter", f"label={label}") if label else ()
        said = await self.ask("image", "ls", "--no-trunc", "--digests", "--format", "{{json .}}", *chosen)
        if said.code != 0:
            raise EngineUnavailable(f"the engine does not list its images: {said.last_line}")
        try:
            return LocalImages.of(map(json.loads, said.output.splitlines()))
        except ValueError:
            raise EngineUnavailable(f"the engine lists its images in no JSON: {said.last_line}") from None

    async def read_label(self, label: str) -> list[str]:
        """The values of this label on images that have it, of the newest image first."""
        said = await self.ask("image", "ls", "--no-trunc", "--quiet", "--filter", f"label={label}")
        ids = list(dict.fromkeys(said.output.split())) if said.code == 0 else []
        values: list[str] = []
        for some in (ids[start : start + _NAMES_AT_ONCE] for start in range(0, len(ids), _NAMES_AT_ONCE)):
            written = f"{{{{json (index .Config.Labels {json.dumps(label)})}}}}"
            said = await self.ask("image", "inspect", "--format", written, *some)
            if said.code == 0:
                values += map(json.loads, said.output.splitlines())
        return values

    async def architectures(self, names: Sequence[str]) -> dict[str, str]:
        """The architecture of each image that states one. The engine must have all of them."""
        found: dict[str, str] = {}
        for some in (names[start : start + _NAMES_AT_ONCE] for start in range(0, len(names), _NAMES_AT_ONCE)):
            said = await self.ask("image", "inspect", "--format", "{{.Architecture}}", *some)
            if said.code == 0:
                found.update(zip(some, said.output.splitlines(), strict=True))
        return {name: architecture for name, architecture in found.items() if architecture}

    async def pull(self, name: str, platform: str | None, seconds: float) -> Said:
        chosen = ("--platform", platform) if platform else ()
        return await run([self.program, "pull", "--quiet", *chosen, name], seconds=seconds)

    async def remove(self, names: Sequence[str]) -> None:
        """Remove unused images. Where an image has other tags, only this one goes."""
        if names:
            await run([self.program, "image", "rm", *names], seconds=self.limits.cleanup)

    async def build_cache(self) -> list[Mapping[str, str]]:
        argv = [self.program, "system", "df", "--verbose", "--format", "{{json .BuildCache}}"]
        said = await run(argv, seconds=self.limits.usage)
        return _parse(said) or []

    async def prune_cache(self, ids: Sequence[str]) -> None:
        if ids:
            pattern = f"id=^({'|'.join(ids)})$"
            await run([self.program, "builder", "prune", "--force", "--filter", pattern], seconds=self.limits.cleanup)

    async def prune_untagged(self, label: str) -> None:
        """Remove images with this label whose tag has moved to a newer one."""
        argv = [self.program, "image", "prune", "--force", "--filter", f"label={label}"]
        await run(argv, seconds=self.limits.cleanup)


async def find(limits: TimeLimits = _LIMITS) -> Docker:
    """The engine that Docker's command on this machine talks to. Several may be installed, and not all may work."""
    programs, reasons = _programs(), []
    for program in programs:
        said = await run([program, "info", "--format", "{{json .}}"], seconds=limits.answer)
        info = _parse(said) or {}
        if info and not info.get("ServerErrors"):
            return Docker([program, *(other for other in programs if other != program)], info, limits)
        reasons.append(info["ServerErrors"][0] if info else said.last_line)
    if not programs:
        raise EngineUnavailable("there is no `docker` command", hint="install Docker's, or Podman's podman-docker")
    raise EngineUnavailable(
        f"no engine answers: {reasons[0]}", hint="start it, or set DOCKER_HOST; see `evalkit doctor`"
    )


def _parse(said: Said) -> Any:
    """The JSON that a command printed; None if it failed or printed anything else."""
    try:
        return json.loads(said.output) if said.code == 0 else None
    except ValueError:
        return None


def _programs() -> list[str]:
    found: dict[Path, str] = {}
    for folder in os.get_exec_path():
        path = Path(folder, "docker")
        if path.is_file() and os.access(path, os.X_OK):
            found.setdefault(path.resolve(), str(path))
    return list(found.values())
