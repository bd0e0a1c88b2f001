"""Counts the lines of a repair that tests reach, in the workspace, by the Python that runs the tests there."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from evalkit.domain.outputs import COVERAGE, TooLarge
from evalkit.domain.protocols import Workspace

_HUNK = re.compile(r"@@ -(\d+)(?:,\d+)? \+(\d+)(?:,\d+)? @@")
_LINES, _EXECUTABLE = "lines", "executable.py"

Line = tuple[str, int]
Hits = Mapping[Line, int]
"""The count of each executable line, 0 where it did not run."""

# Python runs a sitecustomize by itself, in every process. Each line is written when it first runs, so that a process
# that is killed loses no line, and all are written with their counts when one ends. For Python 3.5 and later.
_TRACER = """
import atexit, os, sys, threading

_place = os.environ["EVALKIT_TRACED_PLACE"]
_files = set(os.path.join(_place, name) for name in os.environ["EVALKIT_TRACED_FILES"].split(os.pathsep) if name)
_target = os.path.join(os.path.dirname(os.path.abspath(__file__)), "lines")
_wanted = {}
_counts = {}


def _write(text):
    try:
        with open(_target, "ab", 0) as file:
            file.write(text.encode("utf-8", "replace"))
    except Exception:
        pass


def _render(key):
    return "%s\\t%d\\t%d\\t%d\\n" % (os.path.relpath(key[0], _place), key[1], os.getpid(), _counts[key])


def _trace_line(frame, event, argument):
    if event == "line":
        key = (_wanted[frame.f_code.co_filename], frame.f_lineno)
        if key in _counts:
            _counts[key] += 1
        else:
            _counts[key] = 1
            _write(_render(key))
    return _trace_line


def _trace(frame, event, argument):
    name = frame.f_code.co_filename
    if name not in _wanted:
        path = os.path.abspath(name)
        _wanted[name] = path if path in _files else None
    return _trace_line if _wanted[name] else None


def _end():
    _write("".join(map(_render, list(_counts))))


def _run_shadowed():
    own = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [path for path in sys.path if os.path.abspath(path or ".") != own]
    sys.modules.pop("sitecustomize", None)
    try:
        import sitecustomize
    except ImportError:
        pass


_run_shadowed()
if _files:
    atexit.register(_end)
    threading.settrace(_trace)
    sys.settrace(_trace)
"""
_LIST_EXECUTABLE = """
import os, sys
sys.settrace(None)
from trace import _find_executable_linenos

for name in os.environ["EVALKIT_TRACED_FILES"].split(os.pathsep):
    path = os.path.join(os.environ["EVALKIT_TRACED_PLACE"], name)
    if name and os.path.exists(path):
        try:
            numbers = _find_executable_linenos(path)
        except Exception:
            continue
        for number in numbers:
            print("%s\\t%d\\t0\\t0" % (name, number))
print("\\t0\\t0\\t0")
"""


@dataclass(frozen=True, slots=True)
class Tracing:
    """Counts executed lines in some files of a repository in a workspace."""

    workspace: Workspace
    folder: PurePosixPath
    place: PurePosixPath

    async def begin(self, files: Sequence[str]) -> dict[str, str]:
        """Reset the counts. Returns the environment in which Python counts."""
        await self.workspace.exec(("/bin/sh", "-c", 'rm -rf -- "$1"', "sh", str(self.folder)))
        await self.workspace.write(_TRACER.encode(), self.folder / "sitecustomize.py")
        await self.workspace.write(_LIST_EXECUTABLE.encode(), self.folder / _EXECUTABLE)
        return {
            "PYTHONPATH": str(self.folder),
            "EVALKIT_TRACED_FILES": ":".join(file for file in files if file.endswith(".py")),
            "EVALKIT_TRACED_PLACE": str(self.place),
        }

    @property
    def ending(self) -> str:
        """Commands for the end of a script, after its tests."""
        return f'"$(command -v python || command -v python3)" {self.folder}/{_EXECUTABLE} >> {self.folder}/{_LINES}\n'

    async def read(self, target: Path) -> Hits | None:
        """The counts; None where no Python reported any lines, or too many."""
        target.unlink(missing_ok=True)
        try:
            await self.workspace.read(self.folder / _LINES, target, COVERAGE)
        except (FileNotFoundError, TooLarge):
            return None
        return parse_hits(target.read_bytes().decode("utf-8", "replace"))


def parse_hits(text: str) -> Hits | None:
    """Sum the counts of all processes. A process reports a line more than once: its largest count is the last."""
    counts: dict[tuple[str, int, int], int] = {}
    for each in text.splitlines():
        match each.split("\t"):
            case [file, number, process, count] if (number + process + count).isdecimal():
                key = (file, int(number), int(process))
                counts[key] = max(counts.get(key, 0), int(count))
    if ("", 0, 0) not in counts:
        return None
    hits: Counter[Line] = Counter()
    for (file, line_number, _), times in counts.items():
        if file:
            hits[file, line_number] += times
    return dict(hits)


def changed_files(patch: str) -> list[str]:
    return sorted({file for lines in changed_lines(patch) for file, _ in lines})


def changed_lines(patch: str) -> tuple[list[Line], list[Line]]:
    """The removed lines of a patch, numbered as before it, and the added lines, numbered as after it."""
    removed: list[Line] = []
    added: list[Line] = []
    old_file = new_file = ""
    old = new = 0
    in_hunk = False
    for line in patch.split("\n"):
        if line.startswith("diff --git "):
            in_hunk = False
        elif not in_hunk and line.startswith("--- "):
            old_file = line[4:].partition("\t")[0].removeprefix("a/")
        elif not in_hunk and line.startswith("+++ "):
            new_file = line[4:].partition("\t")[0].removeprefix("b/")
        elif hunk := _HUNK.match(line):
            old, new, in_hunk = int(hunk[1]), int(hunk[2]), True
        elif in_hunk and line.startswith("-"):
            removed.append((old_file, old))
            old += 1
        elif in_hunk and line.startswith("+"):
            added.append((new_file, new))
            new += 1
        elif in_hunk and not line.startswith("\\"):
            old, new = old + 1, new + 1
    return removed, added


def coverage_of(lines: Sequence[tuple[str, Line]], before: Hits, after: Hits) -> list[int]:
    """The counts of a patch's lines: removed ones before the repair, added ones after it."""
    return [(before if sign == "-" else after).get(line, 0) for sign, line in lines]
