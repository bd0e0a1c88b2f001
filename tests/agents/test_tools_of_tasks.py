"""MCP servers and skills of tasks, in the hands of agents in containers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from evalkit.testing import FakeEngine
from evalkit.testing.container_engine import FakeImage
from tests.support.cli import Evalkit, Finished
from tests.support.fake_engine import open_fake_engine
from tests.support.tasks import make_task

TOML = """
schema_version = "1.4"
[environment]
docker_image = "agent"
skills_dir = "/srv/skills"
[[environment.mcp_servers]]
name = "files"
transport = "stdio"
command = "some-server"
args = ["$HOME and 'more'"]
[[environment.mcp_servers]]
name = "web"
transport = "http"
url = "http://web:8000/mcp"
headers = {Authorization = "Bearer ${WEB_TOKEN}"}
"""
TOKEN = "token-of-the-web"
PROGRAM = """#!/bin/sh
echo "header: $EVALKIT_MCP_HEADER_1, as long as ${#EVALKIT_MCP_HEADER_1}"
for word; do echo "word: $word"; done
cat "$EVALKIT_STATEMENT_FILE" "$EVALKIT_MCP_SERVERS"
ls "$EVALKIT_SKILLS_DIR" "$HOME"/.claude/skills "$HOME"/.agents/skills 2>&1
exit 0
"""
TESTS = "echo 1 >/logs/verifier/reward.txt"


@pytest.fixture
def fake(evalkit: Evalkit) -> Iterator[FakeEngine]:
    files = evalkit.folder / "image"
    for name, text in {"srv/skills/counting/SKILL.md": "Count.", "opt/agent": PROGRAM}.items():
        (files / name).parent.mkdir(parents=True, exist_ok=True)
        (files / name).write_text(text)
        (files / name).chmod(0o755)
    for name in ("one", "two"):
        make_task(evalkit.folder / "tasks" / name, tests=TESTS, toml=TOML)
    evalkit.variables["WEB_TOKEN"] = TOKEN
    with open_fake_engine() as engine:
        engine.add_image("agent", FakeImage(files=files))
        yield engine


def infer(evalkit: Evalkit, fake: FakeEngine, *arguments: str) -> Finished:
    options = ("--workspace", "docker", "--set", "run.retries=0", "--agent", "command", *arguments)
    return evalkit("infer", "tasks", *options, "--set", 'agent.command=["/opt/agent", "last"]', DOCKER_HOST=fake.host)


def log(evalkit: Evalkit) -> str:
    return (evalkit.run_directory() / "instances" / "one" / "attempt-1" / "agent.log").read_text()


def test_any_program_finds_a_file_and_a_folder(evalkit: Evalkit, fake: FakeEngine) -> None:
    done = infer(evalkit, fake)
    assert '"Authorization": "${EVALKIT_MCP_HEADER_1}"' in log(evalkit), done.stderr
    assert f"header: Bearer [secret], as long as {len('Bearer ' + TOKEN)}" in log(evalkit)
    assert "counting" in log(evalkit)
    assert "takes no" not in done.stderr
    written = [path.read_bytes() for path in evalkit.runs.rglob("*") if path.is_file()]
    assert not any(TOKEN.encode() in content for content in written)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "words"),
    [
        ("claude-code", ["--mcp-config", "/logs/agent/mcp.json", "last"]),
        (
            "codex",
            [
                "-c",
                """mcp_servers.files={"command" = "some-server", "args" = ["$HOME and 'more'"]}""",
                "-c",
                'mcp_servers.web={"url" = "http://web:8000/mcp", '
                '"env_http_headers" = {"Authorization" = "EVALKIT_MCP_HEADER_1"}}',
                "last",
            ],
        ),
    ],
)
def test_a_preset_has_both_in_its_own_way(evalkit: Evalkit, fake: FakeEngine, preset: str, words: list[str]) -> None:
    done = infer(evalkit, fake, "--set", f"agent.preset={preset}")
    assert [line[6:] for line in log(evalkit).splitlines() if line.startswith("word: ")] == words, done.stderr
    assert log(evalkit).count("counting") == 2, "where the task has skills, and where the agent looks for them"
    assert "takes no" not in done.stderr


@pytest.mark.slow
def test_one_that_knows_no_servers_is_told_in_words_and_what_it_lacks_is_said_once(
    evalkit: Evalkit, fake: FakeEngine
) -> None:
    done = infer(evalkit, fake, "--set", "agent.preset=mini-swe-agent")
    assert "- web: by streamable-http, at http://web:8000/mcp" in log(evalkit), done.stderr
    said = [line for line in done.stderr.splitlines() if "takes no" in line]
    assert said == ["evalkit: the agent takes no environment.skills_dir, and works without: one, two"]


def test_a_header_that_is_not_set_is_named_and_gold_needs_none(evalkit: Evalkit, fake: FakeEngine) -> None:
    del evalkit.variables["WEB_TOKEN"]
    infer(evalkit, fake)
    (row, _) = evalkit.rows()
    assert (row["failure"]["kind"], "WEB_TOKEN" in row["failure"]["message"]) == ("setup", True)
    done = evalkit("infer", "tasks", "--workspace", "docker", "--agent", "nop", DOCKER_HOST=fake.host)
    assert done.document["buckets"]["resolved"] == 2, done.stderr
    assert "takes no" not in done.stderr


def test_skills_need_a_container_and_servers_do_not(evalkit: Evalkit, tmp_path: Path) -> None:
    local = ("--workspace", "local", "--set", "workspace.unsandboxed=true", "--agent", "command")
    program = json.dumps(["sh", "-c", 'cp "$EVALKIT_MCP_SERVERS" servers.json'])
    for name, line in {
        "skills": 'skills_dir = "/skills"',
        "servers": 'mcp_servers = [{name = "a", url = "u"}]',
    }.items():
        make_task(tmp_path / "local" / name, tests="exit 0", toml=f"[environment]\n{line}\n")
    done = evalkit("infer", "local", *local, "--set", f"agent.command={program}")
    assert done.document["ids"]["error"] == ["skills"], done.stderr
    assert done.document["ids"]["resolved"] == ["servers"]
