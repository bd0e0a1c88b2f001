"""Runs the cases with evalkit, and says whether that is what Harbor said."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conformance.cases import VARIABLES, AgentName, Case, Ground
from tests.support.cli import Finished
from tests.support.images import Builds

DIFFERENCES = Path(__file__).parent / "differences.toml"

_RUN_STATEMENT = json.dumps(["bash", "-c", 'eval "$EVALKIT_STATEMENT"'])
_AGENTS: Mapping[AgentName, Sequence[str]] = {
    "gold": ("--agent", "gold"),
    "nop": ("--agent", "nop"),
    "script": ("--agent", "command", "--set", f"agent.command={_RUN_STATEMENT}"),
}
# Where all trials of a case end so, it may be one that evalkit refuses before anything runs, with all beside it.
_FOUND_WHILE_RUNNING = {
    "AgentTimeoutError",
    "HealthcheckError",
    "RewardFileEmptyError",
    "RewardFileNotFoundError",
    "VerifierOutputParseError",
    "VerifierTimeoutError",
}


@dataclass(frozen=True)
class Differences:
    unsupported: frozenset[str]
    reasons: Mapping[str, str]


@dataclass(frozen=True)
class Seen:
    """What evalkit said about one case and agent."""

    rewards: Mapping[str, float] | None = None
    outcome: str = "error"
    failure: str = ""
    """Its kind, or `refused` where the run did not begin."""
    message: str = ""

    @property
    def is_refusal(self) -> bool:
        return self.rewards is None and self.failure in ("refused", "setup", "unsupported")

    @property
    def is_error(self) -> bool:
        """Whether there is no verdict, for a reason that is neither the agent nor a bug."""
        return self.rewards is None and self.failure not in ("", "agent", "internal")


def read_differences() -> Differences:
    table = tomllib.loads(DIFFERENCES.read_text())
    return Differences(frozenset(table["unsupported"]), table["differences"])


def agrees(seen: Seen, record: Mapping[str, Any]) -> bool:
    """Whether there are the same rewards, an error with both, or a refusal, and a time-out of the agent with both."""
    if (seen.outcome == "timeout") != (record.get("error") == "AgentTimeoutError"):
        return False
    if "rewards" not in record:
        return seen.is_error if record.get("loads", True) else seen.is_refusal
    rewards: Mapping[str, float] = record["rewards"]
    return seen.rewards is not None and _are_close(seen.rewards, rewards)


def _are_close(left: Mapping[str, float], right: Mapping[str, float]) -> bool:
    return left.keys() == right.keys() and all(math.isclose(left[key], right[key]) for key in left)


def stands_alone(records: Mapping[str, Mapping[str, Any]]) -> bool:
    return all("rewards" not in each and each["error"] not in _FOUND_WHILE_RUNNING for each in records.values())


@dataclass(frozen=True)
class Judging:
    builds: Builds
    ground: Ground

    def see(self, agent: AgentName, cases: Sequence[Case], run: str) -> Iterator[tuple[str, Seen]]:
        """Run the cases together. Where evalkit refuses to begin, each half has a run of its own."""
        folder = self.builds.evalkit.folder / f"tasks-{run}"
        for case in cases:
            case.lay_out(folder, self.ground)
        finished = self._infer(agent, folder, run)
        if finished.code in (0, 1):
            for row in self.builds.evalkit.rows(run):
                yield row["instance_id"], self._read(row, run)
        elif len(cases) == 1:
            yield cases[0].name, Seen(failure="refused", message=finished.complaint)
        else:
            middle = len(cases) // 2
            yield from self.see(agent, cases[:middle], f"{run}-1")
            yield from self.see(agent, cases[middle:], f"{run}-2")

    def _infer(self, agent: AgentName, folder: Path, run: str) -> Finished:
        settings = [*self.builds.settings(), "--set", "run.retries=0", "--set", "run.breaker=0"]
        return self.builds.evalkit(
            "infer",
            folder,
            *_AGENTS[agent],
            *("--workspace", "docker", "--build-missing", "--workers", 3, "--run-id", run),
            *settings,
            timeout=1800,
            **VARIABLES,
            EVALKIT_WORKSPACE_NETWORK="bridge",  # a flag would win over the lists of the tasks
        )

    def _read(self, row: Mapping[str, Any], run: str) -> Seen:
        failure = row["failure"] or {}
        rewards = None
        if row["verdict"] != "ungraded":
            report = self.builds.evalkit.runs / run / "instances" / row["instance_id"] / "attempt-1" / "report.json"
            rewards = json.loads(report.read_text())["rewards"] if report.exists() else {}
        return Seen(rewards, row["outcome"], failure.get("kind", ""), failure.get("message", ""))
