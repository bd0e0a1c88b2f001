"""Finds out what a plan has to know: folders as they are, base images as they are, and the agent as it is."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from evalkit.config import Config
from evalkit.containers import credentials, reference
from evalkit.containers.docker_cli import Docker, LocalImages
from evalkit.containers.existence import Existence
from evalkit.containers.reference import Pinned
from evalkit.containers.registry import Found, Missing, Registry, plain_hosts
from evalkit.domain.records import Instance
from evalkit.errors import ConfigError, EvalkitError
from evalkit.images import plan, sdist
from evalkit.images.dockerfile import CA_BUNDLE, CONSTRAINTS, ENVIRONMENT, INSTALLER, PIP_CONF
from evalkit.images.plan import AgentPackage, Context, Inputs, Plan
from evalkit.images.sdist import Packing
from evalkit.system import files
from evalkit.system.threads import in_thread


class BaseUnknown(EvalkitError):
    """The image that the agent layer is made with cannot be had."""

    kind = "agent_base"


@dataclass(slots=True)
class Gathering:
    config: Config
    docker: Docker
    packing: Packing
    folder: Path
    """A private one, gone when the command ends."""
    existence: Existence = field(init=False)
    _local: LocalImages = field(default_factory=lambda: LocalImages({}, {}))
    _bases: dict[str, Pinned] = field(default_factory=dict)
    _problems: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        registry = Registry(credentials.find, plain_hosts(self.docker.info))
        self.existence = Existence(registry, self.config.images.retries)

    @property
    def agent_folder(self) -> Path:
        """What the agent's image is made from."""
        return self.folder / "agent"

    async def plan(self, instances: Sequence[Instance]) -> Plan:
        """One command's plan: the sdist is built for it, and bases are looked up for it."""
        images = self.config.images
        try:
            reference.parse(f"{images.repository}:tag")
        except ValueError:
            raise ConfigError(f"images.repository: {images.repository!r} is no repository of images") from None
        if images.agent_source is not None:
            source = await self.packing.pack(images.agent_source)
            names = plan.named_bases(instances, self.config.workspace.image)
            await self._look_up([*names, images.agent_base] if images.strategy == "layer" else names)
            agent = self._make_agent(source)
            await self._refuse_other_architectures(agent)
        else:
            agent = None
        inputs = Inputs(
            repository=images.repository,
            default_image=self.config.workspace.image,
            contexts=await in_thread(self._read_contexts, plan.contexts(instances)),
            bases=self._bases,
            problems=self._problems,
            agent=agent,
            build_args=images.build_args,
            platform=images.platform or "",
        )
        return plan.plan(instances, inputs)

    def secrets(self) -> dict[str, Path]:
        """What an install may see and an image may not keep, by its name in Dockerfiles."""
        images = self.config.images
        found: dict[str, Path] = {}
        for name, key, path in ((PIP_CONF, "pip_conf", images.pip_conf), (CA_BUNDLE, "ca_bundle", images.ca_bundle)):
            if path is not None:
                if not path.is_file():
                    raise ConfigError(f"images.{key}: there is no file {path}")
                found[name] = path.resolve()
        if images.install_env:
            missing = [name for name in images.install_env if name not in os.environ]
            if missing:
                raise ConfigError(f"images.install_env: {', '.join(missing)} is not set in your environment")
            path = self.folder / "install-env.json"
            path.touch(mode=0o600)
            path.write_text(json.dumps({name: os.environ[name] for name in images.install_env}))
            found[ENVIRONMENT] = path
        return found

    async def _look_up(self, names: Iterable[str]) -> None:
        self._local = await self.docker.images()
        async with anyio.create_task_group() as tasks:
            for name in dict.fromkeys(names):
                tasks.start_soon(self._look_up_one, name)

    async def _look_up_one(self, name: str) -> None:
        try:
            wanted = reference.parse(name)
        except ValueError as error:
            self._problems[name] = str(error)
            return
        base = self._local.find(name)
        if base is None and wanted.digest:
            base = Pinned(name, wanted.digest, name)
        if base is None:
            answer = await self.existence.ask(wanted)
            match answer:
                case Found(digest):
                    base = Pinned(name, digest, f"{wanted.familiar_name}@{digest}")
                case Missing():
                    self._problems[name] = f"there is no image {name}"
                case _:
                    self._problems[name] = f"nobody knows whether it exists: {answer.reason}"
        if base is not None:
            self._bases[name] = base

    def _make_agent(self, source: Path) -> AgentPackage:
        images = self.config.images
        if images.strategy == "layer" and images.agent_base not in self._bases:
            raise BaseUnknown(
                f"images.agent_base: {self._problems[images.agent_base]}",
                hint="name an image with Python and venv, or set images.strategy=install",
            )
        digest = sdist.hash_content(source)
        self.agent_folder.mkdir()
        shutil.copy(source, self.agent_folder)
        installer = Path(__file__).with_name(INSTALLER)
        shutil.copy(installer, self.agent_folder / INSTALLER)
        constraints = ""
        if images.constraints is not None:
            try:
                shutil.copy(images.constraints, self.agent_folder / CONSTRAINTS)
            except OSError as error:
                raise ConfigError(
                    f"images.constraints: {images.constraints} cannot be read: {error.strerror}"
                ) from error
            constraints = _hash_file(images.constraints)
        return AgentPackage(
            repository=images.repository,
            strategy=images.strategy,
            sdist=source.name,
            sdist_sha256=digest,
            installer_sha256=_hash_file(installer),
            architecture=(images.platform or self.docker.architecture).rpartition("/")[2],
            base=self._bases[images.agent_base] if images.strategy == "layer" else None,
            constraints_sha256=constraints,
            extra=images.agent_extra,
        )

    async def _refuse_other_architectures(self, agent: AgentPackage) -> None:
        local = [name for name in self._bases if name in self._local]
        for name, architecture in (await self.docker.architectures(local)).items():
            if obstacle := agent.obstacle(architecture):
                del self._bases[name]
                self._problems[name] = obstacle

    def _read_contexts(self, folders: Iterable[Path]) -> dict[Path, Context]:
        found = {}
        for folder in folders:
            try:
                text = (folder / "Dockerfile").read_text(encoding="utf-8", errors="surrogateescape")
                found[folder] = Context(folder, text, files.digest(folder))
            except OSError as error:
                self._problems[str(folder)] = f"{error.filename or folder} cannot be read: {error.strerror}"
        return found


def _hash_file(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
