"""evalkit infer with a scripted model, and a model that knows the bundled tasks."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit.testing.model_server import ModelRequest, ModelServer, Reply, Script, Tokens, ToolCall
from tests.support.cli import Evalkit, Process

KEY = "sk-planted-0123456789"
TOKENS = (Tokens(100, 0, 10, 0), Tokens(220, 100, 40, 15), Tokens(350, 220, 5, 0))
COSTS = (0.001, 0.002, 0.0005)
TOTAL = sum(TOKENS, Tokens())


def known_tasks(root: Path) -> dict[str, Path]:
    """The bundled task folders, by their statements as the model sees them."""
    return {
        (folder / "instruction.md").read_text(encoding="utf-8").strip(): folder
        for folder in sorted(root.iterdir())
        if (folder / "instruction.md").is_file()
    }


def solve_from(root: Path, *, delay: float = 0.0, before: Sequence[ToolCall] = ()) -> Script:
    """Look around, write the files of the reference solution, and finish."""
    tasks = known_tasks(root)

    def script(request: ModelRequest) -> Reply:
        statement = request.statement.partition("<task>")[2].rpartition("</task>")[0].strip()
        solution = tasks[statement] / "solution"
        calls = (
            [ToolCall("shell", {"command": "pwd; ls -R | head -50"}), *before],
            [ToolCall("shell", {"command": unpack(solution)})],
            [ToolCall("finish", {"answer": "done"})],
        )
        step = request.replies_before
        return Reply(f"step {step}", calls[step], tokens=TOKENS[step], cost_usd=COSTS[step], delay=delay)

    return script


def unpack(solution: Path) -> str:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.add(solution, arcname=".")
    content = base64.b64encode(packed.getvalue()).decode()
    return (
        'set -e; export EVALKIT_SOLUTION="$(mktemp -d)"\n'
        f'base64 -d <<END | tar xz -C "$EVALKIT_SOLUTION"\n{content}\nEND\n'
        'sh "$EVALKIT_SOLUTION/solve.sh"\n'
    )


@dataclass
class ModelCli:
    """evalkit infer with an agent in local workspaces that asks a scripted model."""

    evalkit: Evalkit
    agent: str = "shell"
    said: str = ""
    """The standard error of the last run."""

    @property
    def folder(self) -> Path:
        return self.evalkit.folder

    def start(self, server: ModelServer, *arguments: str) -> Process:
        return self.evalkit.start(*self._infer(server, arguments), variables={"THE_KEY": KEY})

    def infer(self, server: ModelServer, *arguments: str) -> dict[str, Any]:
        finished = self.evalkit(*self._infer(server, arguments), THE_KEY=KEY)
        self.said = finished.stderr
        document: dict[str, Any] = finished.document
        return document

    def _infer(self, server: ModelServer, arguments: Sequence[str]) -> list[str]:
        return [
            "infer",
            *("--agent", self.agent, "--model", "scripted", "--workspace", "local", "--run-id", "run"),
            *("--set", f"model.base_url={server.base_url}", "--set", "model.api_key_env=THE_KEY"),
            *arguments,
        ]

    def row(self) -> dict[str, Any]:
        (row,) = self.rows()
        return row

    def rows(self) -> list[dict[str, Any]]:
        return self.evalkit.rows("run")

    def events(self, instance_id: str = "task") -> list[dict[str, Any]]:
        path = self.evalkit.runs / f"run/instances/{instance_id}/attempt-1/trajectory.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()]

    def ending(self) -> str:
        return str(self.events()[-1]["reason"])

    def results(self) -> list[str]:
        return [event["text"] for event in self.events() if event["type"] == "result"]
