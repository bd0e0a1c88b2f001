"""An agent that replaces one text by another in all files: a pattern for agents in packages of their own."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from evalkit import Benchmark, Config, Failed, Job, Meter, Workspace

SCRIPT = Path(__file__).with_name("rewrite.py")


class Options(BaseModel):
    """`[agent.options]` of the config. `evalkit config --agent rewrite` shows it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    old: str = Field(min_length=1, description="Text to replace")
    new: str = Field("", description="What to put in its place")
    files: str = Field("*", description="Only in files with such names")


class RewriteAgent:
    options = Options  # evalkit checks [agent.options] against this before anything starts

    def __init__(self, config: Config, _benchmark: Benchmark) -> None:
        self._options = Options.model_validate(config.agent.options)

    async def solve(self, job: Job, workspace: Workspace, meter: Meter) -> None:
        # Beside the work folder, so that the script is no part of the answer.
        script = workspace.places.logs / "agent" / SCRIPT.name
        await workspace.write(SCRIPT, script)
        chosen = (self._options.old, self._options.new, self._options.files)
        end = await workspace.exec(("python3", str(script), *chosen), stdout=job.log, stderr=job.log)
        if end.code != 0:
            raise Failed("agent", f"nothing could be rewritten: {end.tail.strip()}")
