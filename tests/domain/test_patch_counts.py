from __future__ import annotations

import subprocess
from pathlib import Path

from evalkit.domain.patch_counts import count_patch

PATCH = b"""\
diff --git a/one.py b/one.py
index 111..222 100644
--- a/one.py
+++ b/one.py
@@ -1,3 +1,3 @@
 kept
--- what looks like a header
+++ and its other half
 kept
@@ -9 +9,2 @@
-old
+new
+newer
diff --git a/gone b/gone
deleted file mode 100644
--- a/gone
+++ /dev/null
@@ -1 +0,0 @@
-all
\\ No newline at end of file
diff --git a/picture b/picture
GIT binary patch
literal 3
Kc$@
"""


def test_lines_and_files_are_counted() -> None:
    counts = count_patch(PATCH.splitlines(keepends=True))
    assert (counts.added, counts.removed) == (3, 3)
    assert counts.files == ["one.py", "gone", "(binary)"]


def test_nothing_counts_as_nothing() -> None:
    counts = count_patch([])
    assert (counts.added, counts.removed, counts.files) == (0, 0, [])


def test_counts_as_git_does(tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    before.write_text("".join(f"line {number}\n" for number in range(100)))
    after.write_text("".join(f"line {number if number % 7 else 'new'}\n" for number in range(90)))
    diff = subprocess.run(["git", "diff", "--no-index", before, after], capture_output=True, check=False).stdout
    told = subprocess.run(
        ["git", "diff", "--no-index", "--numstat", before, after], capture_output=True, check=False
    ).stdout.split()
    counts = count_patch(diff.splitlines(keepends=True))
    assert (counts.added, counts.removed) == (int(told[0]), int(told[1]))
