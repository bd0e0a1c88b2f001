"""evalkit infer with a scripted model, run as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit.testing.model_server import ModelServer

KEY = "sk-planted-0123456789"


@dataclass
class Cli:
    """Runs evalkit as a user does, in a folder of its own."""

    folder: Path
    agent: str = "shell"

    def start(self, server: ModelServer, *arguments: str) -> subprocess.Popen[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("EVALKIT_")}
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "evalkit", "infer"),
                *("--agent", self.agent, "--model", "scripted", "--workspace", "local", "--run-id", "run"),
                *("--set", f"model.base_url={server.base_url}", "--set", "model.api_key_env=THE_KEY"),
                *arguments,
            ],
            cwd=self.folder,
            env=environment | {"THE_KEY": KEY},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def infer(self, server: ModelServer, *arguments: str) -> dict[str, Any]:
        with self.start(server, *arguments) as process:
            try:
                out, self.said = process.communicate(timeout=120)
            finally:
                process.kill()
        document: dict[str, Any] = json.loads(out)
        return document

    def row(self) -> dict[str, Any]:
        (row,) = self.rows()
        return row

    def rows(self) -> list[dict[str, Any]]:
        path = self.folder / "runs/run/results.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()]

    def events(self, instance_id: str = "task") -> list[dict[str, Any]]:
        path = self.folder / f"runs/run/instances/{instance_id}/attempt-1/trajectory.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()]

    def ending(self) -> str:
        return str(self.events()[-1]["reason"])

    def results(self) -> list[str]:
        return [event["text"] for event in self.events() if event["type"] == "result"]
