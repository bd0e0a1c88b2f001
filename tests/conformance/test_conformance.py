"""What Harbor says about small tasks, one or more for each rule of its contract, evalkit says too.

One in three of them is run, and all with EVALKIT_TEST_CONFORMANCE=all.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import pytest

from tests.conformance.cases import AgentName, Case, load_cases, sample_cases
from tests.conformance.ground import open_ground
from tests.conformance.judging import Judging, Seen, agrees, read_differences, stands_alone
from tests.conformance.recording import read_records
from tests.support.cli import Evalkit
from tests.support.engine import find_engine
from tests.support.fork_server import ForkServer
from tests.support.images import open_builds

DOCS = Path(__file__).parents[2] / "docs" / "benchmarks.md"

CASES = load_cases()
RECORDS = read_records()
DIFFERENCES = read_differences()
RUN = CASES if os.environ.get("EVALKIT_TEST_CONFORMANCE") == "all" else sample_cases(CASES, one_in=3)
AGENTS: tuple[AgentName, ...] = get_args(AgentName)
PAIRS = [
    pytest.param(name, agent, id=f"{case.topic}-{name}-{agent}") for name, case in RUN.items() for agent in case.agents
]


@pytest.fixture(scope="module")
def seen(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, fork_server: ForkServer
) -> dict[tuple[str, AgentName], Seen]:
    """What evalkit says about the cases of all tests that are run."""
    evalkit = Evalkit(tmp_path_factory.mktemp("conformance"), fork_server)
    parameters = [
        each.callspec.params
        for each in request.session.items
        if isinstance(each, pytest.Function) and hasattr(each, "callspec")
    ]
    wanted = {each["name"] for each in parameters if each.get("name") in CASES}
    found: dict[tuple[str, AgentName], Seen] = {}
    with open_ground(find_engine()) as ground, open_builds(evalkit) as builds:
        judging = Judging(builds, ground)
        for agent in AGENTS:
            cases = [case for case in CASES.values() if agent in case.agents and case.name in wanted]
            for run, group in _group(agent, cases).items():
                found |= {(name, agent): each for name, each in judging.see(agent, group, run)}
    return found


def _group(agent: AgentName, cases: Sequence[Case]) -> dict[str, list[Case]]:
    """The cases of each run: those that may be refused before anything runs have a run of their own."""
    runs: dict[str, list[Case]] = {}
    for case in cases:
        is_alone = case.name in DIFFERENCES.reasons or stands_alone(RECORDS.get(case.name, {}))
        runs.setdefault(f"{agent}-of-{case.name}" if is_alone else agent, []).append(case)
    return runs


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.parametrize(("name", "agent"), PAIRS)
def test_evalkit_says_what_harbor_said(seen: dict[tuple[str, AgentName], Seen], name: str, agent: AgentName) -> None:
    found, record = seen[name, agent], RECORDS[name][agent]
    if name in DIFFERENCES.unsupported:
        assert found.is_refusal, f"{name} is refused no more: take it out of unsupported. {CASES[name].rule}"
    elif name not in DIFFERENCES.reasons:
        assert agrees(found, record), (CASES[name].rule, found, record)


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.parametrize("name", sorted(DIFFERENCES.reasons.keys() & RUN.keys()))
def test_a_difference_is_one(seen: dict[tuple[str, AgentName], Seen], name: str) -> None:
    agents = CASES[name].agents
    assert not all(agrees(seen[name, each], RECORDS[name][each]) for each in agents), f"{name}: take it out"


def test_every_case_is_recorded() -> None:
    recorded = {name: set(by_agent) for name, by_agent in RECORDS.items()}
    assert recorded == {name: set(case.agents) for name, case in CASES.items()}, "run tools/record_conformance.py"


def test_every_difference_is_a_case_and_in_the_docs() -> None:
    text = DOCS.read_text()
    assert DIFFERENCES.unsupported | DIFFERENCES.reasons.keys() <= CASES.keys()
    assert not DIFFERENCES.unsupported & DIFFERENCES.reasons.keys()
    missing = [name for name, reason in DIFFERENCES.reasons.items() if f"| `{name}` | {reason} |" not in text]
    assert missing == []
