"""Decides which images the instances need, and their tags. No I/O happens here.

A tag names all that goes into its image: changing one file of the agent changes all tags, changing the Dockerfile of
one task changes one, and equal tags mean equal contents.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeVar

from evalkit.containers import reference
from evalkit.containers.reference import Pinned
from evalkit.domain.protocols import environments_of, uses_own_image
from evalkit.domain.records import Environment, Instance
from evalkit.domain.services import ServiceBuild
from evalkit.images import dockerfile
from evalkit.images.dockerfile import Syntax
from evalkit.images.registry_agent import RegistryAgent

Strategy = Literal["layer", "install"]
_HASH_LENGTH = 12
_READABLE_LENGTH = 80
_UNSAFE = re.compile(r"[^a-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Context:
    """The present state of a folder with a Dockerfile."""

    folder: Path
    dockerfile: str
    digest: str


@dataclass(frozen=True, slots=True)
class AgentPackage:
    """The agent: an sdist, how it is installed, and the image whose Python it brings along, if any."""

    repository: str
    strategy: Strategy
    sdist: str
    sdist_sha256: str
    installer_sha256: str
    architecture: str
    base: Pinned | None = None
    constraints_sha256: str = ""
    extra: tuple[str, ...] = ()
    """Further packages to install with it."""
    evalkit: tuple[str, ...] = ()
    """Wheels of this evalkit, for an agent that depends on it."""
    evalkit_sha256: str = ""
    packages: RegistryAgent | None = None
    """Where the agent comes from a registry."""

    @property
    def arguments(self) -> tuple[str, ...]:
        if self.packages is not None and self.packages.commands:
            return (self.sdist, f"--commands={json.dumps(self.packages.commands)}")
        constraints = ("--constraints", dockerfile.CONSTRAINTS) if self.constraints_sha256 else ()
        wheels = (f"--evalkit={each}" for each in self.evalkit)
        return (self.sdist, *constraints, *(f"--with={each}" for each in self.extra), *wheels)

    @property
    def digest(self) -> str:
        return _hash(
            self.strategy,
            self.sdist_sha256,
            self.installer_sha256,
            self.constraints_sha256,
            self.base.identity if self.base else "",
            self.architecture,
            _RECIPES,
            self.evalkit_sha256,
            *self.extra,
        )

    @property
    def tag(self) -> str:
        return f"{self.repository}:agent-{self.digest}"

    def dockerfile(self, syntax: Syntax) -> str:
        """The Dockerfile of the image that all others copy from or install from."""
        if self.base is None:
            return dockerfile.agent_source(self.tag)
        return dockerfile.relocatable_agent(self.base.reference, self.arguments, self.tag, syntax)

    def obstacle(self, architecture: str | None) -> str | None:
        """The reason why this agent cannot be copied into images of an architecture, if there is one."""
        if self.strategy == "install" or architecture in (None, self.architecture):
            return None
        return (
            f"it is made for {architecture}, and the agent layer for {self.architecture}: "
            "set images.strategy=install, or images.platform"
        )


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """A planned image. `start` is its Dockerfile without the lines for the agent."""

    tag: str
    base: str
    start: str
    needs: tuple[str, ...]
    context: Path | None = None
    instances: tuple[str, ...] = ()
    seconds: float | None = None
    """The time limit for building it, in place of the run's own."""
    has_agent: bool = True
    target: str | None = None
    """The stage of its Dockerfile to stop at."""
    arguments: tuple[tuple[str, str], ...] = ()
    """Build arguments of its own."""
    content: str = ""
    """Equal where equal folders make images that differ in their names only."""

    def built_from(self, twin: str) -> ImageSpec:
        """This image, made from one of the same content that is on the engine."""
        return replace(
            self, start=f"FROM {twin}\n", needs=(twin,), context=None, has_agent=False, target=None, arguments=()
        )


@dataclass(frozen=True, slots=True)
class Unplanned:
    """An image that gets no tag, because its base image is unknown."""

    base: str
    reason: str
    instances: tuple[str, ...] = ()


T = TypeVar("T", ImageSpec, Unplanned)


@dataclass(frozen=True, slots=True)
class Plan:
    images: tuple[ImageSpec, ...]
    unplanned: tuple[Unplanned, ...]
    image_of: Mapping[str, str]
    """The image of each instance that uses one, by id. Where nothing is built, the benchmark has named it."""
    agent: AgentPackage | None = None
    verifier_image_of: Mapping[Path, str] = field(default_factory=dict)
    """The image of each verifier with an image of its own, by the folder that it is built from."""
    service_image_of: Mapping[ServiceBuild, str] = field(default_factory=dict)
    """The images of services."""

    @property
    def tags(self) -> list[str]:
        tags = [image.tag for image in self.images]
        return [*tags, self.agent.tag] if self.agent else tags

    def dockerfile(self, image: ImageSpec, syntax: Syntax) -> str:
        agent = self.agent if image.has_agent else None
        if agent is None:
            return dockerfile.without_agent(image.start, image.tag)
        if agent.strategy == "layer":
            return dockerfile.with_copied_agent(image.start, agent.tag, image.tag)
        return dockerfile.with_installed_agent(image.start, agent.tag, agent.arguments, image.tag, syntax)


@dataclass(frozen=True, slots=True)
class Inputs:
    """Everything that a plan is made from."""

    repository: str
    default_image: str
    contexts: Mapping[Path, Context] = field(default_factory=dict)
    bases: Mapping[str, Pinned] = field(default_factory=dict)
    dockerfile_bases: Mapping[str, Pinned | None] = field(default_factory=dict)
    """The images that Dockerfiles start or copy from; None for one that does not exist, as its build will say."""
    problems: Mapping[str, str] = field(default_factory=dict)
    """Why a base or a context is missing above."""
    service_contexts: Mapping[ServiceBuild, Context] = field(default_factory=dict)
    agent: AgentPackage | None = None
    build_args: Mapping[str, str] = field(default_factory=dict)
    platform: str = ""


def named_bases(instances: Iterable[Instance], default_image: str) -> list[str]:
    """The images that instances start from by name, each once."""
    named = (each for each in instances if each.build is None and uses_own_image(each))
    return list(dict.fromkeys(each.image or default_image for each in named))


def contexts(instances: Iterable[Instance]) -> list[Path]:
    """The folders that images are built from, each once."""
    environments = [environment for each in instances for environment in environments_of(each).values()]
    return list(dict.fromkeys(each.build for each in environments if each.build is not None))


def bases_of_contexts(inputs: Inputs) -> list[str]:
    """The images that the Dockerfiles of all folders start or copy from, each once."""
    of_tasks = (dockerfile.base_images(each.dockerfile, inputs.build_args) for each in inputs.contexts.values())
    of_services = (
        dockerfile.base_images(each.dockerfile, _arguments_of(build, inputs))
        for build, each in inputs.service_contexts.items()
    )
    return list(dict.fromkeys(name for names in (*of_tasks, *of_services) for name in names))


def service_builds(instances: Iterable[Instance]) -> dict[ServiceBuild, str]:
    """What images of services are built from, each once, with a name to read."""
    return {
        service.build: f"service-{service.name}"
        for instance in instances
        for environment in environments_of(instance).values()
        for service in environment.services.services
        if service.build is not None
    }


def plan(instances: Iterable[Instance], inputs: Inputs) -> Plan:
    made = _Planned()
    image_of: dict[str, str] = {}
    verifier_image_of: dict[Path, str] = {}
    service_image_of: dict[ServiceBuild, str] = {}
    for instance in instances:
        if uses_own_image(instance) and (name := made.add(instance.id, _plan_one(instance, inputs))):
            image_of[instance.id] = name
        for verifier in _built_verifiers(instance):
            assert verifier.build is not None
            planned = _plan_built(f"{instance.id}-verifier", verifier, inputs, has_agent=False)
            if name := made.add(instance.id, planned):
                verifier_image_of[verifier.build] = name
        for build, readable in service_builds([instance]).items():
            if name := made.add(instance.id, _plan_service(readable, build, inputs)):
                service_image_of[build] = name
    images, unplanned = tuple(made.images.values()), tuple(made.unplanned.values())
    return Plan(images, unplanned, image_of, inputs.agent, verifier_image_of, service_image_of)


@dataclass(slots=True)
class _Planned:
    """The images so far. Those of one content are one image, whatever instances need it."""

    images: dict[str, ImageSpec] = field(default_factory=dict)
    unplanned: dict[str, Unplanned] = field(default_factory=dict)

    def add(self, instance_id: str, planned: ImageSpec | Unplanned | str) -> str | None:
        """Add what one instance needs. Returns the name of its image."""
        match planned:
            case ImageSpec() as image:
                more = _for_one_more(self.images.get(image.tag, image), instance_id)
                self.images[image.tag] = replace(more, seconds=_longer(more.seconds, image.seconds))
                return image.tag
            case Unplanned() as problem:
                known = self.unplanned.get(problem.base, problem)
                self.unplanned[problem.base] = _for_one_more(known, instance_id)
                return None
        return planned


def _longer(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else max(one, other)


def _for_one_more(image: T, instance_id: str) -> T:
    return replace(image, instances=(*dict.fromkeys((*image.instances, instance_id)),))


def _plan_one(instance: Instance, inputs: Inputs) -> ImageSpec | Unplanned | str:
    if instance.build is not None:
        return _plan_built(instance.id, instance, inputs, has_agent=True)
    name = instance.image or inputs.default_image
    return name if inputs.agent is None else _plan_extended(name, inputs)


def _built_verifiers(instance: Instance) -> Iterator[Environment]:
    """The verifiers with an image to build. It has no agent, so one that is named needs nothing."""
    for each in (instance, *instance.parts.values()):
        if each.verifier is not None and each.verifier.build is not None:
            yield each.verifier


def _plan_built(readable: str, environment: Environment, inputs: Inputs, *, has_agent: bool) -> ImageSpec | Unplanned:
    """Plan an image from a folder with a Dockerfile."""
    folder = environment.build
    assert folder is not None
    shown = str(folder / "Dockerfile")
    context = inputs.contexts.get(folder)
    if context is None:
        return Unplanned(shown, inputs.problems.get(str(folder), "it was not read"))
    start = _start_from_bases(context.dockerfile, inputs.build_args, inputs)
    if isinstance(start, Unplanned):
        return start
    arguments = sorted(f"{name}={value}" for name, value in inputs.build_args.items())
    own, agent = _hash(context.digest, inputs.platform, *arguments, *start.told), inputs.agent if has_agent else None
    return ImageSpec(
        tag=_tag(inputs, readable, own, agent),
        content=f"{own}-{agent.digest if agent else ''}",
        base=shown,
        start=start.dockerfile,
        needs=start.needs,
        context=folder,
        seconds=environment.build_seconds,
        has_agent=has_agent,
    )


def _plan_service(readable: str, build: ServiceBuild, inputs: Inputs) -> ImageSpec | Unplanned:
    """Plan the image of a service, which has no agent."""
    shown = str(build.context / build.dockerfile)
    context = inputs.service_contexts.get(build)
    if context is None:
        return Unplanned(shown, inputs.problems.get(shown, "it was not read"))
    given = _arguments_of(build, inputs)
    start = _start_from_bases(context.dockerfile, given, inputs)
    if isinstance(start, Unplanned):
        return start
    arguments = sorted(f"{name}={value}" for name, value in given.items())
    own = _hash(context.digest, context.dockerfile, build.target or "", inputs.platform, *arguments, *start.told)
    return ImageSpec(
        tag=_tag(inputs, readable, own, None),
        base=shown,
        start=start.dockerfile,
        needs=start.needs,
        context=build.context,
        has_agent=False,
        target=build.target,
        arguments=build.arguments,
    )


def _arguments_of(build: ServiceBuild, inputs: Inputs) -> dict[str, str]:
    return {**inputs.build_args, **dict(build.arguments)}


@dataclass(frozen=True, slots=True)
class _Start:
    """The beginning of an image that is built from a folder: its Dockerfile, with bases fixed to their content."""

    dockerfile: str
    needs: tuple[str, ...]
    identities: Mapping[str, str]

    @property
    def told(self) -> list[str]:
        return [f"{name}@{identity}" for name, identity in sorted(self.identities.items())]


def _start_from_bases(text: str, arguments: Mapping[str, str], inputs: Inputs) -> _Start | Unplanned:
    needs = dockerfile.base_images(text, arguments)
    for name in needs:
        if name not in inputs.dockerfile_bases:
            return Unplanned(name, inputs.problems.get(name, "it was not looked up"))
    found = {name: base for name in needs if (base := inputs.dockerfile_bases[name])}
    pinned = dockerfile.with_pinned_bases(text, arguments, {name: base.reference for name, base in found.items()})
    identities = {name: base.identity for name, base in found.items()}
    return _Start(dockerfile.with_label_of_bases(pinned, identities), needs, identities)


def _plan_extended(name: str, inputs: Inputs) -> ImageSpec | Unplanned:
    """Plan an image on top of an existing one."""
    base = inputs.bases.get(name)
    if base is None:
        return Unplanned(name, inputs.problems.get(name, "it was not looked up"))
    parsed = reference.parse(name)
    version = parsed.tag.removesuffix("latest")
    return ImageSpec(
        tag=_tag(
            inputs,
            f"{parsed.path.rpartition('/')[2]}-{version}",
            _hash(base.identity, inputs.platform),
            inputs.agent,
        ),
        base=name,
        start=f"FROM {base.reference}\n",
        needs=(name,),
    )


def _tag(inputs: Inputs, readable: str, own: str, agent: AgentPackage | None) -> str:
    slug = _UNSAFE.sub("-", readable.lower()).strip("-.")[:_READABLE_LENGTH].rstrip("-.")
    parts = (slug or "image", own, agent.digest if agent else "")
    return f"{inputs.repository}:{'-'.join(filter(None, parts))}"


def _hash(*parts: str) -> str:
    whole = hashlib.sha256()
    for part in parts:
        whole.update(f"{len(part)}:{part}".encode("utf-8", "surrogateescape"))
    return whole.hexdigest()[:_HASH_LENGTH]


def _recipes() -> str:
    """The text of evalkit's own Dockerfiles: a change in them changes the tags."""
    syntax, agent = Syntax(), ("sdist",)
    return _hash(
        dockerfile.relocatable_agent("base", agent, "tag", syntax),
        dockerfile.with_copied_agent("FROM base", "agent", "tag"),
        dockerfile.with_installed_agent("FROM base", "agent", agent, "tag", syntax),
    )


_RECIPES = _recipes()
