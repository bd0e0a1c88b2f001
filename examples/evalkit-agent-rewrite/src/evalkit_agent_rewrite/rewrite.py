"""Runs inside the workspace, with the Python that it finds there: python3 rewrite.py OLD NEW FILES"""

import sys
from pathlib import Path


def rewrite(folder: Path, old: str, new: str, files: str) -> None:
    for path in folder.rglob(files):
        if path.is_file() and not path.is_symlink():
            before = path.read_bytes()
            after = before.replace(old.encode(), new.encode())
            if after != before:
                path.write_bytes(after)
                print(path.relative_to(folder))


if __name__ == "__main__":
    rewrite(Path.cwd(), *sys.argv[1:])
