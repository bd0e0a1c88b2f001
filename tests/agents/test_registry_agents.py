"""Agents of presets at work in containers without a network: put in as these start, and baked into images.

Each agent is made once, and both ways use it.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from pathlib import Path
from typing import Any

import pytest

from evalkit.testing.model_server import ModelRequest, Reply, Tokens, ToolCall
from tests.agents.test_in_containers import Scripted
from tests.support.cli import Evalkit
from tests.support.engine import Engine
from tests.support.tasks import make_task

pytestmark = [pytest.mark.slow, pytest.mark.engine, pytest.mark.usefixtures("engine")]

TAKES_MINUTES = pytest.mark.skipif(
    os.environ.get("EVALKIT_TEST_AGENTS") != "all", reason="its packages take minutes: EVALKIT_TEST_AGENTS=all"
)
COMMAND = "echo baked >answer.txt"
TESTS = "grep -q baked answer.txt"
WITHOUT_TOOLS = "answer.txt\n```\nbaked\n```\n"  # how aider's model writes a file
SUBMIT = "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"  # how mini-swe-agent's ends
SHELLS: dict[str, dict[str, Any]] = {
    "Bash": {"command": COMMAND, "description": "Write the answer"},
    "bash": {"command": COMMAND, "description": "Write the answer"},
    "exec_command": {"cmd": COMMAND},
    "shell_command": {"command": COMMAND},
    "shell": {"command": ["sh", "-c", COMMAND]},
    "run_shell_command": {"command": COMMAND, "description": "Write the answer", "is_background": False},
    "terminal": {"command": COMMAND},
}
# The loader says what it would load; of a program without libraries it says nothing. Where a library names no place of
# its own to search, that of the program counts.
LIST_LIBRARIES = """
import glob, os, subprocess
(loader,) = glob.glob("/opt/evalkit-agent/lib/ld-linux-*.so.*")
for place, _, names in os.walk("/opt/evalkit-agent"):
    for name in names:
        path = os.path.join(place, name)
        if os.path.isfile(path) and open(path, "rb").read(4) == bytes([127]) + b"ELF":
            is_library = ".so" in name or name.endswith(".node")
            options = ["--library-path", os.path.dirname(loader)] if is_library else []
            subprocess.run([loader, *options, "--list", path], stderr=subprocess.STDOUT)
"""
PRICES = {"input": 1.0, "cached": 0.5, "output": 2.0}
"""USD per million tokens."""


def use_the_shell(request: ModelRequest) -> Reply:
    """Whatever the tool is called. Requests without one, such as for a title, get a text."""
    tools = json.dumps(request.body.get("tools", []))
    name = next((each for each in SHELLS if f'"name": "{each}"' in tools), None)
    tokens = Tokens(100 + request.number, 40, 20, 0)
    if name is None:
        return Reply(WITHOUT_TOOLS, tokens=tokens)
    if not request.replies_before:
        return Reply("", [ToolCall(name, SHELLS[name])], tokens=tokens)
    if SUBMIT in json.dumps(request.body):
        return Reply("", [ToolCall(name, {"command": SUBMIT})], tokens=tokens)
    return Reply("done", tokens=tokens)


def settings(engine: Engine, repository: str, preset: str) -> dict[str, Any]:
    return {
        "agent__preset": preset,
        "agent__name": "command",
        "images__agent_base": engine.python,
        "images__network": "host",
        "images__disk_floor": 0,
        "images__repository": repository,
        "model__prices": "{" + ", ".join(f"{name} = {price}" for name, price in PRICES.items()) + "}",
        "workspace__network": "none",
        "workspace__memory": "2g",
        "run__retries": 0,
    }


def solve(run: Scripted, name: str, path: str, **given: Any) -> Path:
    """The tasks of this folder are resolved, calls, tokens and cost are the server's, and trajectories are read."""
    before = len(run.server.calls)
    place = run.evalkit.runs / f"{name}-{secrets.token_hex(4)}"  # tests at once share an engine
    words = ("--workers", "2", "--timeout", "200", "--run-id", place.name, *run.settings(**given))
    finished = run.evalkit("infer", name, *words, timeout=900)
    assert (place / "results.jsonl").exists(), finished.stderr
    logs = [each.read_text()[-3000:] for each in place.glob("instances/*/attempt-1/agent.log")]
    rows = [json.loads(line) for line in (place / "results.jsonl").read_text().splitlines()]
    assert {row["verdict"] for row in rows} == {"resolved"}, (finished.stderr, *logs, rows)
    calls = [call for call in run.server.calls[before:] if call.outcome == "reply" and "count" not in call.request.path]
    assert any(path in call.request.path for call in calls)
    usage = finished.document["usage"]
    assert usage["llm_calls"] == len(calls)
    tokens = [call.tokens for call in calls]
    total = {name: sum(getattr(each, name) for each in tokens) for name in ("input", "cached", "output")}
    assert {name: usage[f"{name}_tokens"] for name in total} == total
    paid = {**total, "input": total["input"] - total["cached"]}
    assert usage["cost_usd"] == pytest.approx(sum(PRICES[name] * paid[name] for name in paid) / 1e6)
    for row in rows:
        shown = run.evalkit("trajectory", place, row["instance_id"], "--format", "atif")
        assert "baked" in json.dumps(shown.document["steps"]), shown.stderr
    return place


def loaded_from_elsewhere(engine: Engine, image: str) -> list[str]:
    """What programs and libraries of the agent in an image take from outside of it, such as the image's C library."""
    found = subprocess.run(
        ["docker", "run", "--rm", "--network=none", image, "python3", "-c", LIST_LIBRARIES],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "DOCKER_HOST": engine.host},
    ).stdout.splitlines()
    libraries = [line.strip() for line in found if "=> /" in line]
    assert any("=> /opt/evalkit-agent/lib/libc.so.6" in line for line in libraries)
    return [line for line in libraries if "=> /opt/evalkit-agent/" not in line]


def solve_in_any_image(run: Scripted, path: str, **given: Any) -> None:
    """Put in as containers start: where there is no C library, by root and by a user without a home. Baked in: in
    an image of Debian, which has one; by then, no registry is asked."""
    evalkit, engine, preset = run.evalkit, run.engine, given["agent__preset"]
    evalkit.variables |= {
        "EVALKIT_CACHE": str(evalkit.folder / "cache"),
        "npm_config_cache": str(Path("~/.npm").expanduser()),
    }
    for name, more in {"by-root": "", "by-user": '[agent]\nuser = "1000"\n'}.items():
        toml = f'[environment]\ndocker_image = "{engine.busybox}"\n{more}'
        make_task(evalkit.folder / "at-start" / name, tests=TESTS, toml=toml)
    started = solve(run, "at-start", path, **given)
    layer = json.loads((started / "run.json").read_text())["layer"]
    assert layer["agent"] == preset

    evalkit.variables |= {"npm_config_registry": "http://127.0.0.1:9", "PIP_INDEX_URL": "http://127.0.0.1:9"}
    words = run.settings(**given)
    planned = evalkit("infer", "at-start", "--dry-run", *words).document["agent_layer"]
    assert (planned["digest"], planned["cached"]) == (layer["digest"], True)

    make_task(evalkit.folder / "baked/debian", tests=TESTS, files={"Dockerfile": f"FROM {engine.python}\n"})
    given |= {"images__agent": preset}
    built = evalkit("build-images", "baked", *run.settings(**given), timeout=900)
    assert built.code == 0, built.stderr
    solve(run, "baked", path, **given)
    assert not engine.api.volumes(filters={"label": f"evalkit.run={started.name}"})["Volumes"]
    (image,) = (each["tag"] for each in built.document["images"])
    assert loaded_from_elsewhere(engine, image) == []


@pytest.mark.parametrize(
    ("preset", "path"),
    [
        ("claude-code@2.1.197", "/messages"),
        ("codex@0.171.0", "/responses"),
        ("gemini-cli@0.61.0", ":streamGenerateContent"),
        ("opencode@1.18.33", "/chat/completions"),
        ("qwen-code@0.24.4", "/chat/completions"),
    ],
)
def test_an_agent_of_npm_works_in_any_image_without_a_network(
    evalkit: Evalkit, engine: Engine, serve: Any, repository: str, preset: str, path: str
) -> None:
    run = Scripted(evalkit, engine, serve(use_the_shell))
    solve_in_any_image(run, path, **settings(engine, repository, preset))


@pytest.mark.parametrize("preset", ["mini-swe-agent@2.4.6", pytest.param("aider@0.86.2", marks=TAKES_MINUTES)])
def test_an_agent_of_pypi_works_in_any_image_without_a_network(
    evalkit: Evalkit, engine: Engine, serve: Any, repository: str, preset: str
) -> None:
    run = Scripted(evalkit, engine, serve(use_the_shell))
    solve_in_any_image(run, "/chat/completions", **settings(engine, repository, preset))
