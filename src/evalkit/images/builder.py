"""The ways to build images with an engine, and the command of one build."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from evalkit.containers.docker_cli import Docker, run
from evalkit.images.decisions import engine_gone
from evalkit.images.dockerfile import Syntax
from evalkit.system import scratch

BuilderKind = Literal["buildx", "buildkit", "classic"]
_PROBE = "FROM scratch\nCOPY Dockerfile /\n"


@dataclass(frozen=True, slots=True)
class Builder:
    """A way to build images that works with this engine."""

    program: str
    kind: BuilderKind
    environment: Mapping[str, str]

    @property
    def syntax(self) -> Syntax:
        return Syntax(mounts=self.kind != "classic")

    def command(self, *options: str) -> tuple[str, ...]:
        if self.kind == "buildx":
            return (self.program, "buildx", "build", "--load", "--progress=plain", *options)
        if self.kind == "buildkit":
            return (self.program, "build", "--progress=plain", *options)
        return (self.program, "build", "--rm", "--force-rm", *options)


async def find_builder(docker: Docker) -> Builder:
    """BuildKit, through whichever command offers it; otherwise the classic builder."""
    context = (await docker.ask("context", "show")).output.strip() or "default"
    for program in docker.programs:
        # The builder named like the context is the engine's own; others may keep images out of the engine's store:
        # https://docs.docker.com/build/builders/drivers/
        environment = {"BUILDX_BUILDER": context, "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}
        if await _can_build(found := Builder(program, "buildx", environment), docker.limits.probe):
            return found
    for program in docker.programs:
        if await _can_build(found := Builder(program, "buildkit", {"DOCKER_BUILDKIT": "1"}), docker.limits.probe):
            return found
    if not await docker.answers():
        raise engine_gone()
    return Builder(docker.program, "classic", {"DOCKER_BUILDKIT": "0"})


async def _can_build(builder: Builder, seconds: float) -> bool:
    with scratch.folder() as folder:
        (folder / "Dockerfile").write_text(_PROBE)
        command = builder.command("--output", f"type=local,dest={folder}/out", str(folder))
        environment = {**builder.environment, scratch.TOKEN_VARIABLE: folder.name}
        said = await run(command, environment=environment, seconds=seconds)
        return said.code == 0
