"""An agent that replaces one text by another in all files: a pattern for agents in packages of their own."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from evalkit.config import Config
from evalkit.domain.failures import Failed
from evalkit.domain.protocols import Benchmark, Workspace
from evalkit.domain.records import Job, Meter


class Options(BaseModel):
    """`[agent.options]` of the config. `evalkit config --agent rewrite` shows it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    old: str = Field(min_length=1, description="Text to replace")
    new: str = Field("", description="What to put in its place")
    files: str = Field("*", description="Only in files with such names")


@dataclass(frozen=True, slots=True)
class RewriteAgent:
    options: Options

    async def solve(self, job: Job, workspace: Workspace, meter: Meter) -> None:
        script = (
            'find . -type f -name "$1" -exec python3 -c "import sys, pathlib; old, new, *names = sys.argv[1:]\n'
            "for path in map(pathlib.Path, names):\n"
            "    text = path.read_bytes()\n"
            '    path.write_bytes(text.replace(old.encode(), new.encode()))" "$2" "$3" {} +'
        )
        chosen = (self.options.files, self.options.old, self.options.new)
        end = await workspace.exec(("/bin/sh", "-c", script, "sh", *chosen), stdout=job.log, stderr=job.log)
        if end.code != 0:
            raise Failed("agent", f"nothing could be rewritten: {end.tail.strip()}")


def create(config: Config, _benchmark: Benchmark) -> RewriteAgent:
    return RewriteAgent(Options.model_validate(config.agent.options))


# evalkit checks [agent.options] against this before anything starts, and shows it.
setattr(create, "options", Options)  # noqa: B010  # functions have no such attribute for mypy
