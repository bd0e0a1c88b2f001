"""Runs with everything that a report shows, and reports of them."""

from __future__ import annotations

import base64
import gzip
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from evalkit import reports
from evalkit.config import Config
from evalkit.domain.failures import Kind
from evalkit.domain.records import Usage
from evalkit.domain.results import Failure, Patch
from evalkit.reports.documents import DocumentSet
from evalkit.reports.payload import as_script, encode_document
from evalkit.reports.write import write_report
from evalkit.runs.summarize import open_run
from evalkit.store.run_directory import RunDirectory
from tests.support.runs import make_manifest, make_result
from tests.support.tasks import make_task

PAGES = Path(reports.__file__).parent / "pages"
PATCH = """\
diff --git a/clock.py b/clock.py
--- a/clock.py
+++ b/clock.py
@@ -1,3 +1,4 @@
 def seconds(minutes):
-    return minutes * 6
+    # an hour has as many minutes
+    return minutes * 60

"""
TESTS = "\x1b[32mPASSED\x1b[0m test_clock.py::test_zero\n\x1b[1;31mFAILED\x1b[0m test_clock.py::test_hour\n"
OOM: Kind = "oom"


def make_run(
    path: Path, ids: Sequence[str], resolved: set[str], *, steps: int = 6, started: str = "2026-11-01"
) -> Path:
    """A run in which some instances are resolved, and every tenth of the others is out of memory.

    With steps, the first instances have tasks, and what an agent leaves.
    """
    tasks = path.with_name("tasks")
    filled = ids[: 12 if steps else 0]
    for each in filled:
        make_task(tasks / each)
    manifest = make_manifest(
        list(ids),
        run_id=path.name,
        created_at=f"{started}T10:00:00.000Z",
        config=Config.model_validate(
            {"benchmark": {"name": "tasks", "dataset": str(tasks)}, "agent": {"name": "shell"}}
        ).model_dump(mode="json"),
        fields={"repo": [each.split("-", 1)[0] for each in ids]},
    )
    directory = RunDirectory.create(path, manifest)
    with directory.writing():
        directory.append([_result(directory, each, at, each in resolved, started) for at, each in enumerate(ids)])
    for each in filled:
        _fill(directory.attempt_folder(each, 1), each, steps, started)
    return path


def _result(directory: RunDirectory, name: str, at: int, is_resolved: bool, started: str) -> Any:
    is_lost = not is_resolved and at % 10 == 3
    return make_result(
        name,
        outcome="error" if is_lost else "submitted",
        verdict="ungraded" if is_lost else "resolved" if is_resolved else "unresolved",
        score=None if is_lost else float(is_resolved),
        failure=Failure(kind=OOM, message="killed at 4.0 GB", stage="solve") if is_lost else None,
        patch=Patch(sha256="", bytes=len(PATCH), path=f"{directory.artifacts(name, 1)}/patch.diff"),
        usage=Usage(llm_calls=3, input_tokens=900 + at, output_tokens=100, cost_usd=0.01 * (at % 7)),
        started_at=f"{started}T10:00:00.000Z",
        finished_at=f"{started}T10:{at // 60 % 60:02}:{at % 60:02}.000Z",
        seconds=10.0 + at % 50,
        stages={"open": 1.0, "solve": 8.0, "grade": 1.0},
        artifacts=directory.artifacts(name, 1),
    )


def _fill(folder: Path, name: str, steps: int, started: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "patch.diff").write_text(PATCH)
    (folder / "test_output.txt").write_text(TESTS)
    (folder / "agent.log").write_text("the agent begins\n")
    (folder / "report.json").write_text(json.dumps({"tests": {"test_clock.py::test_hour": "failed"}}))
    with (folder / "trajectory.jsonl").open("w") as file:
        file.writelines(json.dumps(event) + "\n" for event in make_events(name, steps, started))


def make_events(name: str, steps: int, started: str, output: str = "one line\n") -> list[dict[str, Any]]:
    """A trajectory in which every fifth command fails."""
    at = {"at": f"{started}T10:00:01.000Z"}
    found: list[dict[str, Any]] = [
        {"type": "start", "instance_id": name, "agent": "shell", "attempt": 1, **at},
        {"type": "message", "role": "user", "text": f"Mend the clock of {name}.", **at},
    ]
    for step in range(1, steps + 1):
        call = {"id": f"c{step}", "name": "bash", "arguments": json.dumps({"command": f"pytest -k {step}"})}
        found += [
            {"type": "reply", "step": step, "text": f"Step {step}.", "reasoning": "Hm.", "tool_calls": [call], **at},
            {"type": "result", "step": step, "tool_call_id": f"c{step}", "text": output, **at},
        ]
        found[-1]["exit_code"] = int(step % 5 == 0)
    return [*found, {"type": "end", "reason": "finish", **at}]


def make_repeated_run(path: Path, resolved: Mapping[str, Sequence[bool | None]]) -> Path:
    """A run with several attempts at each instance, which are all made; None is one that the machine broke."""
    most = max(map(len, resolved.values()))
    config = Config.model_validate({"agent": {"name": "nop"}, "run": {"attempts": most, "stop_on": "never"}})
    manifest = make_manifest(list(resolved), run_id=path.name, config=config.model_dump(mode="json"))
    directory = RunDirectory.create(path, manifest)
    with directory.writing():
        for name, each in resolved.items():
            for attempt, is_resolved in enumerate(each, 1):
                if is_resolved is None:
                    broken = {"outcome": "error", "verdict": "ungraded", "failure": Failure(kind="engine")}
                    directory.append([make_result(name, attempt, **broken)])
                    continue
                verdict = "resolved" if is_resolved else "unresolved"
                directory.append([make_result(name, attempt, verdict=verdict, score=float(is_resolved))])
    return path


def report_on(target: Path, *runs: Path) -> str:
    """Write a report, and return the address of its first page."""
    write_report(DocumentSet([open_run(str(run), run.parent) for run in runs]), target, PAGES)
    return (target / "index.html").as_uri()


def report_overview(target: Path, run: Path) -> str:
    """Write a report without the pages of instances, and return the address of its first page."""
    documents = DocumentSet([open_run(str(run), run.parent)])
    for key, document in (*documents.overview(), ("index", documents.index())):
        path = target / "data" / f"{key}.js"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(as_script(key, encode_document(document)))
    for page in PAGES.iterdir():
        shutil.copy(page, target)
    return (target / "index.html").as_uri()


Change = Callable[[str, Any], Any]


def rewrite(report: Path, change: Change) -> None:
    """Put other documents in the place of those in a report."""
    for path in (report / "data").rglob("*.js"):
        key = path.relative_to(report / "data").with_suffix("").as_posix()
        path.write_bytes(as_script(key, encode_document(change(key, read_document(path)))))


def read_document(path: Path) -> Any:
    """The document in a script."""
    call = path.read_text().removeprefix("evalkit.receive(").rstrip().removesuffix(");")
    payload = msgspec.json.decode(call[call.index(",", call.index('"', 1)) + 1 :])
    if isinstance(payload, dict) and set(payload) == {"gzip"}:
        return json.loads(gzip.decompress(base64.b64decode(payload["gzip"])))
    return payload
