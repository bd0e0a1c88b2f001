"""Runs trials with Harbor, by Harbor's own Python: one JSON line on standard input for each, one on output.

Three things differ from an installed Harbor. Containers are killed when they are stopped: their `sleep` does not listen
to signals, and each trial would wait 10 seconds. Compose is called without the docker command, which would look for all
its plugins each time. And the image of its sidecar for networks is named by the caller, because Harbor makes it from
one of a public hub.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from harbor.agents.base import BaseAgent
from harbor.environments.base import BaseEnvironment
from harbor.environments.docker.docker import DockerEnvironment
from harbor.environments.docker.runtime import DOCKER_RUNTIME
from harbor.models.agent.context import AgentContext
from harbor.models.trial.config import AgentConfig, EnvironmentConfig, TaskConfig, TrialConfig
from harbor.trial.trial import Trial

_AGENTS: Mapping[str, Mapping[str, str]] = {
    "gold": {"name": "oracle"},
    "nop": {"name": "nop"},
    "script": {"import_path": f"{Path(__file__).stem}:ScriptAgent"},
}


class ScriptAgent(BaseAgent):
    """Runs the statement as a script."""

    @staticmethod
    def name() -> str:
        return "script"

    def version(self) -> str:
        return "1"

    async def setup(self, environment: BaseEnvironment) -> None:
        pass

    async def run(self, instruction: str, environment: BaseEnvironment, context: AgentContext) -> None:
        await environment.exec(instruction)


async def run_trial(order: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What Harbor says about one task and agent: the rewards that it holds valid, and the name of an exception."""
    config = TrialConfig(
        task=TaskConfig(path=Path(order["task"])),
        trial_name=f"{order['case']}-{order['agent']}",
        trials_dir=folder,
        agent=AgentConfig(**_AGENTS[order["agent"]]),
        environment=EnvironmentConfig(type="docker"),
    )
    found: dict[str, Any] = {"case": order["case"], "agent": order["agent"]}
    try:
        result = await (await Trial.create(config)).run()
    except Exception as error:  # noqa: BLE001  # whatever Harbor raises is what is asked for
        return found | {"loads": False, "error": type(error).__name__, "message": str(error)}
    exceptions = result.recorded_exceptions()
    if result.verifier_result is not None and result.reward_valid:
        found["rewards"] = result.verifier_result.rewards
    if exceptions:
        found |= {"error": exceptions[0].exception_type, "message": exceptions[0].exception_message}
    return found if "rewards" in found or exceptions else found | {"error": "no rewards"}


async def run_trials(orders: list[dict[str, Any]], workers: int, folder: Path) -> None:
    limit = asyncio.Semaphore(workers)

    async def limited(order: dict[str, Any]) -> None:
        async with limit:
            found = await run_trial(order, folder)
        print(json.dumps(found), flush=True)

    await asyncio.gather(*map(limited, orders))


def adapt(folder: Path, sidecar: str) -> None:
    for name in ("_DOCKER_COMPOSE_BUILD_PATH", "_DOCKER_COMPOSE_PREBUILT_PATH", "_DOCKER_COMPOSE_EGRESS_CONTROL_PATH"):
        given = getattr(DockerEnvironment, name)
        text = given.read_text().rstrip()
        (folder / given.name).write_text(f"{text}\n    stop_grace_period: 0s\n")
        setattr(DockerEnvironment, name, folder / given.name)

    plugin = Path(os.environ.get("DOCKER_CONFIG", Path.home() / ".docker")) / "cli-plugins" / "docker-compose"
    if plugin.exists():
        runtime = replace(DOCKER_RUNTIME, compose=(str(plugin),))
        DockerEnvironment.runtime = classmethod(lambda _: runtime)

    async def name_sidecar(self: DockerEnvironment) -> None:
        self._env_vars.egress_control_sidecar_image_name = sidecar

    DockerEnvironment._egress_control_kernel_support = classmethod(lambda _: True)
    DockerEnvironment._ensure_egress_control_sidecar_image_built = name_sidecar


def main() -> None:
    workers, sidecar = int(sys.argv[1]), sys.argv[2]
    with tempfile.TemporaryDirectory() as name:
        adapt(Path(name), sidecar)
        asyncio.run(run_trials(list(map(json.loads, sys.stdin)), workers, Path(name) / "trials"))


if __name__ == "__main__":
    main()
