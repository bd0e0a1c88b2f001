"""A model that knows the bundled tasks: it looks around, writes what the reference solution would, and finishes."""

from __future__ import annotations

import base64
import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

from evalkit.testing.model_server import ModelRequest, Reply, Script, Tokens, ToolCall

TOKENS = (Tokens(100, 0, 10, 0), Tokens(220, 100, 40, 15), Tokens(350, 220, 5, 0))
COSTS = (0.001, 0.002, 0.0005)
TOTAL = sum(TOKENS, Tokens())


def known_tasks(root: Path) -> dict[str, Path]:
    """Task folders by their statement, as the model sees it."""
    return {
        (folder / "instruction.md").read_text(encoding="utf-8").strip(): folder
        for folder in sorted(root.iterdir())
        if (folder / "instruction.md").is_file()
    }


def solve_from(root: Path, *, delay: float = 0.0, before: Sequence[ToolCall] = ()) -> Script:
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
