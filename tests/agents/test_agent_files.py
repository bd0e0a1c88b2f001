"""The first agent of one's own: a program of this machine is found, and comes into the workspace."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from evalkit.agents.agent_files import find_files
from evalkit.errors import ConfigError
from tests.support.cli import Evalkit
from tests.support.engine import Engine
from tests.support.tasks import make_task, make_tasks

FIXER = '#!/bin/sh\nsed -n 1p "$EVALKIT_STATEMENT_FILE" >answer\n'
TESTS = "grep -q '^Do task' answer"


def write_program(path: Path, content: str = FIXER, mode: int = 0o755) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    path.chmod(mode)
    return path


def solve(evalkit: Evalkit, command: str, *settings: str, kind: str = "local") -> list[tuple[str, str]]:
    make_task(evalkit.folder / "task", tests=TESTS)
    given = [word for each in (f"agent.command={command}", *settings) for word in ("--set", each)]
    evalkit("infer", "task", "--workspace", kind, "--agent", "command", "--run-id", "run", *given)
    return [(row["outcome"], row["verdict"]) for row in evalkit.rows("run")]


@pytest.mark.parametrize("command", ["./fixer.sh", "fixer.sh", "~/fixer.sh", "{folder}/fixer.sh", "sh fixer.sh"])
@pytest.mark.parametrize("sandboxed", [True, False], ids=["sandboxed", "unsandboxed"])
def test_a_script_of_this_machine_is_an_agent(evalkit: Evalkit, command: str, sandboxed: bool) -> None:
    evalkit.choose_sandbox(sandboxed=sandboxed)
    write_program(evalkit.folder / "fixer.sh")
    allowed = () if sandboxed else ("workspace.unsandboxed=true",)
    assert solve(evalkit, command.format(folder=evalkit.folder), *allowed) == [("submitted", "resolved")]


def test_a_script_whose_interpreter_is_not_there_says_so(evalkit: Evalkit) -> None:
    write_program(evalkit.folder / "fixer.sh", "#!/opt/nowhere/bash\n")
    assert solve(evalkit, "./fixer.sh") == [("error", "ungraded")]
    (row,) = evalkit.rows("run")
    assert "the interpreter in its first line is not in the workspace" in row["failure"]["message"]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ('["sh", "-c", "./nowhere"]', r"sh exited with status 127: sh: .*\./nowhere: .+"),
        ('["sh", "-c", "exit 127"]', "sh exited with status 127: it printed nothing"),
    ],
)
def test_what_a_shell_does_not_find_is_told_in_its_words(evalkit: Evalkit, command: str, said: str) -> None:
    assert solve(evalkit, command) == [("error", "ungraded")]
    (row,) = evalkit.rows("run")
    assert row["failure"]["kind"] == "agent"
    assert re.fullmatch(said, row["failure"]["message"])


def test_further_files_come_along(evalkit: Evalkit) -> None:
    write_program(evalkit.folder / "agent/main.sh", '#!/bin/sh\n. "${0%/*}/lib/words.sh"; cat "$1" >answer; words\n')
    write_program(evalkit.folder / "agent/lib/words.sh", "words() { echo done; }\n", 0o644)
    write_program(evalkit.folder / "notes.txt", "Do task\n", 0o600)
    assert solve(evalkit, "agent/main.sh notes.txt", "agent.files=agent,notes.txt") == [("submitted", "resolved")]


@pytest.mark.engine
@pytest.mark.parametrize("command", ["./fixer.sh", "sh fixer.sh"])
def test_a_script_comes_into_containers(evalkit: Evalkit, engine: Engine, command: str) -> None:
    write_program(evalkit.folder / "fixer.sh")
    settings = (f"workspace.image={engine.busybox}", "workspace.memory=128m")
    assert solve(evalkit, command, *settings, kind="docker") == [("submitted", "resolved")]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("./plain.sh", ("plain.sh cannot be executed", "chmod +x ./plain.sh")),
        ("~/nowhere.sh", ("there is no file ~/nowhere.sh",)),
    ],
)
def test_a_program_that_cannot_run_is_refused_before_anything_starts(
    evalkit: Evalkit, command: str, words: tuple[str, ...]
) -> None:
    write_program(evalkit.folder / "plain.sh", mode=0o644)
    evalkit("infer", "--agent", "command", "--set", f"agent.command={command}").refused(2, "config", *words)
    assert not evalkit.runs.exists()


def test_files_that_are_not_there_or_have_one_name_are_refused(tmp_path: Path) -> None:
    first, second = write_program(tmp_path / "a/x.txt"), write_program(tmp_path / "b/x.txt")
    with pytest.raises(ConfigError, match=r"agent\.files: nowhere is not there"):
        find_files(("sh",), ["nowhere"])
    with pytest.raises(ConfigError, match="have the same name"):
        find_files(("sh",), [str(first), str(second)])


def test_programs_of_the_system_and_of_python_environments_stay_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_program(tmp_path / "venv/pyvenv.cfg", "")
    program = write_program(tmp_path / "venv/bin/agent")
    monkeypatch.chdir(tmp_path)
    for argv, kept in (
        ("/bin/sh -c true", "/bin/sh"),
        ("venv/bin/agent --fast", str(program)),
        ("cat venv/pyvenv.cfg", "cat"),
    ):
        found = find_files(shlex.split(argv), [])
        assert (found.argv[0], found.sources, found.program) == (kept, {}, kept)


def test_what_is_not_found_is_said_with_the_place_and_what_helps(evalkit: Evalkit) -> None:
    make_tasks(evalkit.folder / "tasks", 2)
    command = ("infer", "tasks", "--workspace", "local", "--agent", "command", "--set", "agent.command=nosuch")
    evalkit(*command).refused(3, "preflight", "nosuch is not found in the local sandbox", "agent.command")
    assert list(evalkit.runs.iterdir()) == [], "and nothing was spent"
    single = evalkit(*command, "--limit", "1")
    assert single.code == 1
    assert "nosuch is not found in the local sandbox: install it" in evalkit.rows()[0]["failure"]["message"]
    evalkit.assert_nothing_left()


@pytest.mark.engine
def test_what_is_not_found_in_containers_is_said_too(evalkit: Evalkit, engine: Engine) -> None:
    make_tasks(evalkit.folder / "tasks", 2)
    image = ("--set", f"workspace.image={engine.busybox}", "--set", "workspace.memory=128m")
    finished = evalkit("infer", "tasks", "--agent", "command", "--set", "agent.command=nosuch", *image)
    finished.refused(3, "preflight", f"nosuch is not found in the container of {engine.busybox}", "images.agent_source")
    assert list(evalkit.runs.iterdir()) == []
