"""Small task directories, one or more for each rule of Harbor's contract, described in cases/*.toml.

A case has a `rule`, and what differs from a plain task, whose solution writes /app/done and whose test looks for it:

- `toml`: task.toml, to which a version and the image are added where it names none;
- `solve`, `test`: the scripts of the solution and the verifier; `check` is a test's condition, for a reward of 1 or 0;
- `script`: the statement, which is a script here, that the agent `script` runs;
- `files`: further files by their paths, also in place of those above; `no_...` leaves one out;
- `agents`: of `gold` (Harbor's oracle), `nop` and `script`, those that are of interest.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

AgentName = Literal["gold", "nop", "script"]

FOLDER = Path(__file__).parent / "cases"
VARIABLES = {"CONFORMANCE_VALUE": "from outside"}
"""Variables of the machine that tasks refer to. CONFORMANCE_UNSET is none."""

_GOLD_AND_NOP: tuple[AgentName, ...] = ("gold", "nop")
_TEST = "if {}; then echo 1; else echo 0; fi > /logs/verifier/reward.txt"


@dataclass(frozen=True)
class Ground:
    """What the tasks stand on: images, and a web site that containers with a network reach."""

    image: str
    """Debian with bash and Python, an empty /app as work folder, and a user `worker`."""
    sidecar: str
    verifier: str
    """The first image, with a test for /app/done at /tests."""
    host: str
    port: int

    def fill(self, text: str) -> str:
        known = {
            "IMAGE": self.image,
            "SIDECAR": self.sidecar,
            "VERIFIER": self.verifier,
            "PROBE": f"probe http://{self.host}:{self.port}/",
            "HOST": self.host,
            "RANGE": f"{self.host}/32",
        }
        for name, value in known.items():
            text = text.replace(f"@{name}@", value)
        return text


@dataclass(frozen=True)
class Case:
    topic: str
    """The name of the file that describes it."""
    name: str
    rule: str
    toml: str = ""
    solve: str = "echo done > /app/done"
    test: str = ""
    check: str = "[ -e /app/done ]"
    script: str = "true"
    files: Mapping[str, str] = field(default_factory=dict)
    agents: tuple[AgentName, ...] = _GOLD_AND_NOP
    no_image: bool = False
    no_instruction: bool = False
    no_solution: bool = False
    no_task_file: bool = False
    no_tests: bool = False

    def lay_out(self, parent: Path, ground: Ground) -> Path:
        """Write the task directory."""
        for path, text in self._texts():
            place = parent / self.name / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(ground.fill(text))
        return parent / self.name

    def _texts(self) -> Iterator[tuple[str, str]]:
        if not self.no_task_file:
            yield "task.toml", self._task_file()
        if not self.no_instruction:
            yield "instruction.md", f"{self.script.strip()}\n"
        if not self.no_solution:
            yield "solution/solve.sh", _script(self.solve)
        if not self.no_tests:
            yield "tests/test.sh", _script(self.test or _TEST.format(self.check.strip()))
        yield from self.files.items()

    def _task_file(self) -> str:
        text = f"{self.toml.strip()}\n"
        if "version" not in text.partition("\n[")[0]:
            text = f'schema_version = "1.4"\n{text}'
        if self.no_image or "environment/Dockerfile" in self.files or "[environment]\ndocker_image" in text:
            return text
        image = '[environment]\ndocker_image = "@IMAGE@"\n'
        return text.replace("[environment]\n", image) if "[environment]\n" in text else text + image


def load_cases() -> dict[str, Case]:
    cases = {}
    for path in sorted(FOLDER.glob("*.toml")):
        for name, table in tomllib.loads(path.read_text()).items():
            assert name not in cases, f"there are two cases {name}"
            agents = tuple(table.pop("agents", _GOLD_AND_NOP))
            cases[name] = Case(topic=path.stem, name=name, agents=agents, **table)
    return cases


def sample_cases(cases: Mapping[str, Case], *, one_in: int) -> dict[str, Case]:
    """Some cases of each topic, evenly over its file, where those of one rule stand together."""
    by_topic: dict[str, list[Case]] = {}
    for case in cases.values():
        by_topic.setdefault(case.topic, []).append(case)
    return {case.name: case for group in by_topic.values() for case in group[::one_in]}


def _script(text: str) -> str:
    return f"#!/bin/bash\n{text.strip()}\n"
