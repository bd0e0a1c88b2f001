"""Counts the files of a patch, and its added and removed lines."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

_HUNK = re.compile(rb"@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@")
_OLD, _NEW, _NOWHERE = b"--- ", b"+++ ", b"/dev/null"


@dataclass(slots=True)
class PatchCounts:
    added: int = 0
    removed: int = 0
    files: list[str] = field(default_factory=list)


def count_patch(lines: Iterable[bytes]) -> PatchCounts:
    """Count a unified diff from git. Hunk lengths are respected, so no line of a hunk is mistaken for a header."""
    counts = PatchCounts()
    old = new = 0
    before = b""
    for line in lines:
        if old > 0 or new > 0:
            sign = line[:1]
            old -= sign in (b" ", b"-", b"\n", b"")
            new -= sign in (b" ", b"+", b"\n", b"")
            counts.added += sign == b"+"
            counts.removed += sign == b"-"
        elif match := _HUNK.match(line):
            old, new = (1 if count is None else int(count) for count in match.groups())
        elif line.startswith(_OLD):
            before = line[len(_OLD) :]
        elif line.startswith(_NEW):
            after = line[len(_NEW) :]
            counts.files.append(_name(before if after.startswith(_NOWHERE) else after))
        elif line.startswith((b"GIT binary patch", b"Binary files ")):
            counts.files.append("(binary)")
    return counts


def _name(side: bytes) -> str:
    text = side.rstrip(b"\r\n").partition(b"\t")[0].decode("utf-8", "replace").strip('"')
    return text[2:] if text.startswith(("a/", "b/")) else text
