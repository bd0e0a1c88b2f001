"""Agents that misbehave, as real processes: every instance gets its row, and the machine is clean afterwards."""

from __future__ import annotations

import os
import resource
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from commandline import Evalkit, Finished, make_task, make_tasks, require

# A case that was here once made evalkit follow a link to / and remove every repository of the machine.
# It may run again where a mistake can cost nothing: in a container or a mount namespace of its own.
if os.environ.get("EVALKIT_TEST_DISPOSABLE_MACHINE") != "1":
    pytest.skip("abuses the machine that it runs on: only where that can be thrown away", allow_module_level=True)

pytestmark = pytest.mark.parametrize("sandboxed", [True, False], ids=["sandboxed", "unsandboxed"])


def run_agent(evalkit: Evalkit, sandboxed: bool, script: str, *more: object, tasks: int = 2) -> Finished:
    if sandboxed not in (None,) and not (evalkit.folder / "programs").exists():
        evalkit.choose_sandbox(sandboxed)
    if not (evalkit.folder / "tasks").exists():
        make_tasks(evalkit.folder / "tasks", tasks, tests="grep -q done answer", files={"given": "given\n"})
    agent = shlex.join(["sh", "-c", script])
    return evalkit(
        "infer", "tasks", "--workspace", "local", "--agent", "command", "--set", "workspace.unsandboxed=true",
        "--set", f"agent.command={agent}", *more,
    )  # fmt: skip


def outcomes(finished: Finished, evalkit: Evalkit) -> set[tuple[str, str]]:
    rows = evalkit.rows()
    assert finished.document["buckets"]["incomplete"] == 0, finished.stderr
    assert "Traceback" not in finished.stderr, finished.stderr
    return {(row["outcome"], row["verdict"]) for row in rows}


DONE = "echo done > answer"


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("sleep 400", ("timeout", "unresolved")),
        ("trap '' TERM INT HUP; while :; do sleep 400; done", ("timeout", "unresolved")),
        ("setsid sleep 400 & (setsid sh -c 'sleep 401 & sleep 402' &) ; sleep 403", ("timeout", "unresolved")),
        ("env -i setsid sleep 404 & sleep 405", ("timeout", "unresolved")),
        ("env -i A=1 setsid sleep 406 & sleep 407", ("timeout", "unresolved")),
    ],
)
def test_hanging(evalkit: Evalkit, sandboxed: bool, script: str, expected: tuple[str, str]) -> None:
    finished = run_agent(evalkit, sandboxed, f"echo partial > answer; {script}", "--timeout", "1s")
    assert outcomes(finished, evalkit) == {expected}
    assert all("partial" in (evalkit.run_directory() / row["patch"]["path"]).read_text() for row in evalkit.rows())
    evalkit.assert_nothing_left()
    assert_no_sleepers()


def assert_no_sleepers() -> None:
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        assert not (command[0] == b"sleep" and command[1] in [b"40%d" % n for n in range(8)]), command


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (f"{DONE}; (setsid sleep 400 &); (setsid sh -c 'sleep 401 & sleep 402' &)", ("submitted", "resolved")),
        (f"{DONE}; env -i A=1 setsid sleep 403 &", ("submitted", "resolved")),
        (f"{DONE}; exit 137", ("error", "ungraded")),
        (f"{DONE}; kill -9 $$", ("error", "ungraded")),
        ('rm -rf "${EVALKIT_WORK:?}"', ("submitted", "unresolved")),
        (f"{DONE}; mkdir -p locked/in; echo x > locked/in/f; chmod 000 locked/in locked", ("submitted", "resolved")),
        (f"{DONE}; mkfifo pipe; ln -s /etc/passwd out; ln -s ../../.. up; ln -s loop loop", ("submitted", "resolved")),
        (f"{DONE}; python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"s\")'", ("submitted", "resolved")),
        (
            f"{DONE}; printf '\\377\\376\\000\\200' > binary; touch \"$(printf 'bad\\377name')\"",
            ("submitted", "resolved"),
        ),
        (
            f"{DONE}; git init -q . ; git -c user.name=x -c user.email=x commit -q --allow-empty -m x",
            ("submitted", "resolved"),
        ),
        ("printf 'no newline' > answer; echo -n; true", ("submitted", "unresolved")),
        ("true", ("empty", "ungraded")),
        ('echo \'{"cost_usd": NaN}\' > "$EVALKIT_USAGE"; echo done > answer', ("submitted", "resolved")),
        ('rm -f "$EVALKIT_USAGE"; mkfifo "$EVALKIT_USAGE"; echo done > answer', ("submitted", "resolved")),
        (
            'ln -sf /dev/zero "$EVALKIT_TRAJECTORY"; ln -sf /dev/zero "$EVALKIT_USAGE"; echo done > answer',
            ("submitted", "resolved"),
        ),
    ],
)
def test_misbehaving(evalkit: Evalkit, sandboxed: bool, script: str, expected: tuple[str, str]) -> None:
    evalkit.powerless = os.geteuid() == 0
    finished = run_agent(evalkit, sandboxed, script, tasks=1)
    assert outcomes(finished, evalkit) == {expected}, evalkit.rows()
    evalkit.assert_nothing_left()
    assert_no_sleepers()


def test_deep_folders(evalkit: Evalkit, sandboxed: bool) -> None:
    """Deeper than Python may recurse and longer than a path may be."""
    deep = "import os\nfor _ in range(3000): os.mkdir('d'); os.chdir('d')"
    finished = run_agent(evalkit, sandboxed, f"{DONE}; python3 -c {shlex.quote(deep)}", tasks=1)
    assert finished.document["buckets"]["incomplete"] == 0
    assert "Traceback" not in finished.stderr
    evalkit.assert_nothing_left()


def test_printing_much(evalkit: Evalkit, sandboxed: bool) -> None:
    script = f"{DONE}; yes 0123456789012345678901234567890 | head -c 300M"
    finished = run_agent(evalkit, sandboxed, script, tasks=1)
    assert outcomes(finished, evalkit) == {("submitted", "resolved")}
    log = evalkit.run_directory() / "instances" / "task-000" / "attempt-1" / "agent.log"
    assert log.stat().st_size >= 300 << 20
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 250 << 10
    assert (evalkit.run_directory() / "results.jsonl").stat().st_size < 5000


def test_a_patch_of_100_megabytes(evalkit: Evalkit, sandboxed: bool) -> None:
    script = (
        f"{DONE}; head -c 50M /dev/urandom > random; (printf '\\377\\000'; head -c 50M /dev/zero | tr '\\0' a) > text"
    )
    finished = run_agent(evalkit, sandboxed, script, tasks=1)
    assert outcomes(finished, evalkit) == {("submitted", "resolved")}
    (row,) = evalkit.rows()
    assert row["patch"]["bytes"] > 50 << 20
    assert evalkit("predictions").code == 0


def mount(place: Path, size: str) -> None:
    place.mkdir(exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], capture_output=True, check=False
    )
    require("root", done.returncode == 0, f"cannot mount a small file system: {done.stderr.decode().strip()}")


def test_a_full_temporary_disk(evalkit: Evalkit, sandboxed: bool) -> None:
    mount(evalkit.temporary, "8m")
    try:
        finished = run_agent(evalkit, sandboxed, "head -c 20M /dev/zero > big", tasks=3)
        assert finished.code in (1, 3), finished.stderr
        assert "Traceback" not in finished.stderr
        assert all(row["failure"] for row in evalkit.rows())
        evalkit.assert_nothing_left()
    finally:
        subprocess.run(["umount", "-l", evalkit.temporary], check=True)


def test_a_full_disk_for_results(evalkit: Evalkit, sandboxed: bool) -> None:
    mount(evalkit.runs, "1m")
    try:
        make_tasks(evalkit.folder / "tasks", 12, tests="grep -q done answer")
        script = f"{DONE}; head -c 150k /dev/urandom | base64"
        finished = run_agent(evalkit, sandboxed, script, "--workers", 1, tasks=12)
        assert finished.code == 3, (finished.code, finished.stderr)
        done = {row["instance_id"] for row in evalkit.rows() if row["outcome"] == "submitted"}
        undone = finished.document["ids"]["incomplete"]
        assert undone
        assert undone[0] in finished.complaint
        subprocess.run(["mount", "-o", "remount,size=50m", evalkit.runs], check=True)
        resumed = evalkit("resume")
        assert resumed.code == 0, resumed.stderr
        assert resumed.document["buckets"]["resolved"] == 12
        counts: dict[str, Any] = {}
        for row in evalkit.rows():
            counts.setdefault(row["instance_id"], []).append(row["outcome"])
        assert all(outcomes == ["submitted"] for name, outcomes in counts.items() if name in done)
        evalkit.assert_nothing_left()
    finally:
        subprocess.run(["umount", "-l", evalkit.runs], check=True)


def test_deleting_the_answer_of_others(evalkit: Evalkit, sandboxed: bool) -> None:
    """In the sandbox, neither the data set nor the run nor other workspaces can be seen or written to."""
    if not sandboxed:
        pytest.skip("without a sandbox an agent has all rights, which is why it must be allowed")
    make_task(evalkit.folder / "tasks" / "one", tests="grep -q done answer", solution=DONE)
    script = (
        f"ls {evalkit.folder}/tasks/one/solution {evalkit.runs} && exit 3; "
        f"echo x > {evalkit.folder}/written && exit 4; [ $(ls -d /tmp/*/ | wc -l) -le 1 ] || exit 5; {DONE}"
    )
    finished = run_agent(evalkit, sandboxed, script)
    assert outcomes(finished, evalkit) == {("submitted", "resolved")}, evalkit.rows()
    assert not (evalkit.folder / "written").exists()
