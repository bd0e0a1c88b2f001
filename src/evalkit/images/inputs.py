"""Gathers the inputs of a plan: the present state of folders, base images and the agent."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import anyio

from evalkit.config import Config
from evalkit.containers import credentials, docker_cli, reference
from evalkit.containers.docker_cli import Docker, LocalImages
from evalkit.containers.existence import Existence
from evalkit.containers.reference import Pinned
from evalkit.containers.registry import Found, Missing, Registry, Unknown, plain_hosts
from evalkit.domain.json_values import mapping_of
from evalkit.domain.records import Instance
from evalkit.domain.services import ServiceBuild
from evalkit.errors import ConfigError, EvalkitError
from evalkit.images import dockerfile, own_wheels, plan, sdist
from evalkit.images.dockerfile import CA_BUNDLE, CONSTRAINTS, ENVIRONMENT, INSTALLER, PIP_CONF
from evalkit.images.plan import AgentPackage, Context, Inputs
from evalkit.images.registry_agent import TREE, RegistryAgent
from evalkit.images.sdist import Packing
from evalkit.images.shortages import find_shortage
from evalkit.system import files
from evalkit.system.threads import in_thread


class BaseUnknown(EvalkitError):
    """The image that the agent layer is built on is not available."""

    kind = "agent_base"


@dataclass(frozen=True, slots=True)
class Sources:
    """Where images are looked up: the engine and registries."""

    docker: Docker
    existence: Existence


async def find_sources(config: Config) -> Sources:
    docker = await docker_cli.find()
    registry = Registry(credentials.find, plain_hosts(docker.info))
    return Sources(docker, Existence(registry, config.images.retries))


async def find_inputs(
    config: Config,
    instances: Sequence[Instance],
    sources: Sources,
    packing: Packing,
    folder: Path,
    packages: RegistryAgent | None = None,
) -> Inputs:
    """The inputs of one command: its sdist is built and its bases are looked up.

    `packages` are those of an agent that comes from a registry.
    """
    images = config.images
    try:
        reference.parse(f"{images.repository}:tag")
    except ValueError:
        raise ConfigError(f"images.repository: {images.repository!r} is not a repository of images") from None
    contexts, problems = await in_thread(_read_contexts, plan.contexts(instances))
    of_services, more = await in_thread(_read_service_contexts, plan.service_builds(instances))
    problems |= more
    known = Inputs(
        repository=images.repository,
        default_image=config.workspace.image,
        contexts=contexts,
        problems=problems,
        service_contexts=of_services,
        build_args=images.build_args,
        platform=images.platform or "",
    )
    known = await _with_bases_of_contexts(known, sources)
    if images.agent_source is None and packages is None:
        return known
    source = await packing.pack(images.agent_source) if images.agent_source is not None else None
    names = plan.named_bases(instances, config.workspace.image)
    bases = await _look_up([*names, images.agent_base] if images.strategy == "layer" else names, sources)
    agent = _make_agent(config, source, packages, bases, sources.docker, folder)
    bases.problems.update(await _find_obstacles(agent, bases, sources.docker))
    fitting = {name: base for name, base in bases.found.items() if name not in bases.problems}
    return replace(known, agent=agent, bases=fitting, problems={**known.problems, **bases.problems})


def agent_context(folder: Path) -> Path:
    """The context of the agent's image, in the private folder of a command."""
    return folder / "agent"


def find_secrets(config: Config, folder: Path) -> dict[str, Path]:
    """Files that an install may see and an image may not keep, by their names in Dockerfiles."""
    images = config.images
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
        path = folder / "install-env.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps({name: os.environ[name] for name in images.install_env}))
        found[ENVIRONMENT] = path
    return found


@dataclass(frozen=True, slots=True)
class Bases:
    """The base images that were found, and the reasons why others were not."""

    local: LocalImages
    found: dict[str, Pinned] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    """Those among the problems that do not exist."""


async def _look_up(names: Iterable[str], sources: Sources) -> Bases:
    bases = Bases(await sources.docker.images())

    async def look_up(name: str) -> None:
        base = await _look_up_one(name, bases.local, sources.existence)
        match base:
            case Pinned():
                bases.found[name] = base
            case Missing():
                bases.missing.append(name)
                bases.problems[name] = f"there is no image {name}"
            case str() as problem:
                bases.problems[name] = problem

    async with anyio.create_task_group() as tasks:
        for name in dict.fromkeys(names):
            tasks.start_soon(look_up, name)
    return bases


async def _with_bases_of_contexts(known: Inputs, sources: Sources) -> Inputs:
    """Add what Dockerfiles start from. What was known as images were made from it counts where nobody else can tell."""
    names = plan.bases_of_contexts(known)
    if not names:
        return known
    bases = await _look_up(names, sources)
    found: dict[str, Pinned | None] = {**bases.found, **dict.fromkeys(bases.missing)}
    if lacking := [name for name in names if name not in bases.found]:
        told = _remembered(await sources.docker.read_label(dockerfile.BASES_LABEL))
        found |= {name: told[name] for name in lacking if name in told}
    problems = {name: reason for name, reason in bases.problems.items() if name not in found}
    return replace(known, dockerfile_bases=found, problems={**known.problems, **problems})


def _remembered(labels: Iterable[str]) -> dict[str, Pinned]:
    """The bases that images were made from, by name. The newest image comes first, and counts."""
    found: dict[str, Pinned] = {}
    for label in labels:
        try:
            told = mapping_of(json.loads(label))
        except ValueError:
            continue  # any image can have a label of this name
        for name, identity in told.items():
            if isinstance(identity, str):
                found.setdefault(name, Pinned(name, identity, name))
    return found


async def _look_up_one(name: str, local: LocalImages, existence: Existence) -> Pinned | Missing | str:
    """The image of this name, or why nobody knows."""
    try:
        wanted = reference.parse(name)
    except ValueError as error:
        return str(error)
    if base := local.find(name):
        return base
    if wanted.digest:
        return Pinned(name, wanted.digest, name)
    match await existence.ask(wanted):
        case Found(digest):
            return Pinned(name, digest, f"{wanted.familiar_name}@{digest}")
        case Missing() as missing:
            return missing
        case Unknown() as unknown:
            return f"nobody knows whether it exists: {unknown.reason}"


def _make_agent(
    config: Config, source: Path | None, packages: RegistryAgent | None, bases: Bases, docker: Docker, folder: Path
) -> AgentPackage:
    """Describes the agent, and lays out the context of its image."""
    images = config.images
    if images.strategy == "layer" and images.agent_base not in bases.found:
        raise BaseUnknown(
            f"images.agent_base: {bases.problems[images.agent_base]}",
            hint="name an image with Python and venv, or set images.strategy=install",
        )
    architecture = (images.platform or docker.architecture).rpartition("/")[2]
    context = agent_context(folder)
    context.mkdir()
    extra = images.agent_extra
    if source is not None:
        name, digest = source.name, sdist.hash_content(source)
        shutil.copy(source, context)
    else:
        assert packages is not None
        packages = _for_architecture(packages, architecture)
        name, digest = (TREE if packages.registry == "npm" else packages.packages[0]), packages.digest
        extra = (*(packages.packages[1:] if packages.registry == "pypi" else ()), *extra)
    installer = Path(__file__).with_name(INSTALLER)
    shutil.copy(installer, context / INSTALLER)
    _copy_constraints(images.constraints, packages, context / CONSTRAINTS)
    required = own_wheels.requirements_of(source) if source is not None else []
    needs_evalkit = own_wheels.depends_on_evalkit([*required, *extra])
    wheels = own_wheels.pack(context) if needs_evalkit else ()
    return AgentPackage(
        repository=images.repository,
        strategy=images.strategy,
        sdist=name,
        sdist_sha256=digest,
        installer_sha256=_hash_file(installer),
        architecture=architecture,
        base=bases.found[images.agent_base] if images.strategy == "layer" else None,
        constraints_sha256=_hash_file(context / CONSTRAINTS) if (context / CONSTRAINTS).exists() else "",
        extra=extra,
        evalkit=tuple(wheel.name for wheel in wheels),
        evalkit_sha256=" ".join(map(_hash_file, wheels)),
        packages=packages,
    )


def _copy_constraints(given: Path | None, packages: RegistryAgent | None, target: Path) -> None:
    if given is not None:
        try:
            shutil.copy(given, target)
        except OSError as error:
            raise ConfigError(f"images.constraints: {given} cannot be read: {error.strerror}") from error
    elif packages is not None and packages.pins:
        target.write_text(packages.pins, encoding="utf-8")


def _for_architecture(packages: RegistryAgent, architecture: str) -> RegistryAgent:
    if packages.registry == "npm" and shutil.which("npm") is None:
        raise ConfigError(
            "images.agent: its packages are fetched by npm, which is not here", hint="install Node with npm"
        )
    try:
        return packages.on(architecture)
    except KeyError:
        raise ConfigError(f"images.agent: it is not known for {architecture}", hint="see images.platform") from None


async def _find_obstacles(agent: AgentPackage, bases: Bases, docker: Docker) -> dict[str, str]:
    """Why the agent cannot be copied into some of the bases."""
    local = [name for name in bases.found if name in bases.local]
    architectures = await docker.architectures(local)
    obstacles = {name: agent.obstacle(architecture) for name, architecture in architectures.items()}
    return {name: obstacle for name, obstacle in obstacles.items() if obstacle}


def _read_contexts(folders: Iterable[Path]) -> tuple[dict[Path, Context], dict[str, str]]:
    found, problems = {}, {}
    for folder in folders:
        try:
            text = (folder / "Dockerfile").read_text(encoding="utf-8", errors="surrogateescape")
            found[folder] = Context(folder, text, files.digest(folder))
        except OSError as error:
            if find_shortage(error.errno):
                raise
            problems[str(folder)] = f"{error.filename or folder} cannot be read: {error.strerror}"
    return found, problems


def _read_service_contexts(builds: Iterable[ServiceBuild]) -> tuple[dict[ServiceBuild, Context], dict[str, str]]:
    found, problems = {}, {}
    for build in builds:
        path = build.context / build.dockerfile
        try:
            text = build.inline or path.read_text(encoding="utf-8", errors="surrogateescape")
            found[build] = Context(build.context, text, files.digest(build.context))
        except OSError as error:
            if find_shortage(error.errno):
                raise
            problems[str(path)] = f"{error.filename or path} cannot be read: {error.strerror}"
    return found, problems


def _hash_file(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
