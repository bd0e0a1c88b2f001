"""A small agent as a Python project with a command. Packing it needs no network."""

from __future__ import annotations

import io
import tarfile
import textwrap
from pathlib import Path

_PYPROJECT = """\
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "toy-agent"
version = "1.0"
"""
_BACKEND = """
import io, tarfile, zipfile
from pathlib import Path

METADATA = "Metadata-Version: 2.1\\nName: toy-agent\\nVersion: 1.0\\n"
FILES = ("pyproject.toml", "backend.py", "toy_agent.py")


def build_sdist(target, config_settings=None):
    name = "toy_agent-1.0.tar.gz"
    with tarfile.open(Path(target, name), "w:gz") as archive:
        for file in FILES:
            archive.add(file, f"toy_agent-1.0/{file}")
        info = tarfile.TarInfo("toy_agent-1.0/PKG-INFO")
        info.size = len(METADATA)
        archive.addfile(info, io.BytesIO(METADATA.encode()))
    return name


def build_wheel(target, config_settings=None, metadata_directory=None):
    name, info = "toy_agent-1.0-py3-none-any.whl", "toy_agent-1.0.dist-info"
    with zipfile.ZipFile(Path(target, name), "w") as wheel:
        wheel.write("toy_agent.py")
        wheel.writestr(f"{info}/METADATA", METADATA)
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(f"{info}/entry_points.txt", "[console_scripts]\\ntoy-agent = toy_agent:main\\n")
        wheel.writestr(f"{info}/RECORD", "")
    return name
"""
_AGENT = """
import ctypes, sqlite3, ssl, subprocess, sys


def main():
    version = "{version}"
    child = subprocess.run([sys.executable, "-c", "print('child')"], capture_output=True, text=True, check=True)
    print("toy agent", version, sys.prefix, child.stdout.strip())
"""


def make_agent(folder: Path, version: str = "1.0", requires: str = "") -> Path:
    folder.mkdir(parents=True)
    (folder / "pyproject.toml").write_text(_PYPROJECT)
    metadata = f"Version: 1.0\\nRequires-Dist: {requires}\\n" if requires else "Version: 1.0\\n"
    (folder / "backend.py").write_text(_BACKEND.replace("Version: 1.0\\n", metadata, 1))
    (folder / "toy_agent.py").write_text(_AGENT.format(version=version))
    return folder


def make_sdist(folder: Path, version: str = "1.0", requires: str = "") -> Path:
    """The same agent as an sdist, always with the same bytes, so that the build cache has its installation."""
    source = make_agent(folder / "source", version, requires)
    path = folder / "toy_agent-1.0.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=0, format=tarfile.PAX_FORMAT) as archive:
        for name in ("pyproject.toml", "backend.py", "toy_agent.py"):
            content = (source / name).read_bytes()
            info = tarfile.TarInfo(f"toy_agent-1.0/{name}")
            info.size, info.mtime = len(content), 10**9
            archive.addfile(info, io.BytesIO(content))
        if requires:
            content = f"Metadata-Version: 2.1\nName: toy-agent\nVersion: 1.0\nRequires-Dist: {requires}\n".encode()
            info = tarfile.TarInfo("toy_agent-1.0/PKG-INFO")
            info.size, info.mtime = len(content), 10**9
            archive.addfile(info, io.BytesIO(content))
    packed = bytearray(path.read_bytes())
    packed[4:8] = b"\0" * 4  # the time in the gzip header
    path.write_bytes(packed)
    return path


def break_agent(folder: Path) -> None:
    """Make its build fail with a message."""
    (folder / "backend.py").write_text(
        textwrap.dedent(
            """
            def build_sdist(target, config_settings=None):
                raise SystemExit("the frobnicator is missing")
            """
        )
    )
