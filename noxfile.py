"""The checks of evalkit, each in an environment of its own: `nox`, or one of them with `nox -s tests-3.12`."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import nox

PYTHONS = ("3.11", "3.12", "3.13", "3.14")

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = False  # the tests run on each Python that is there
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["lint", "types", "tests"]


def show_pythons_of_pyenv() -> None:
    """Its python3.12 runs only if that version was chosen; chosen are all that it has, the oldest first."""
    if shutil.which("pyenv") and "PYENV_VERSION" not in os.environ:
        listed = subprocess.run(["pyenv", "versions", "--bare"], capture_output=True, text=True, check=False)
        known = [name for name in listed.stdout.split() if name.rpartition(".")[0] in PYTHONS]
        if known:
            os.environ["PYENV_VERSION"] = ":".join(known)


show_pythons_of_pyenv()


@nox.session
def lint(session: nox.Session) -> None:
    """Style and mistakes that can be read off the text."""
    session.install("ruff>=0.9")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """mypy --strict over everything that is Python."""
    session.install("-e", ".[dev]")
    session.run("mypy")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """What `python -m pytest` runs, on each Python."""
    session.install("-e", ".[dev]")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session
def slow(session: nox.Session) -> None:
    """The tests that take long."""
    session.install("-e", ".[dev]")
    session.run("python", "-m", "pytest", "-m", "slow", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Which branches of the source the tests take, also in the processes that they start."""
    session.install("-e", ".[dev]")
    data = Path("build/coverage/data").resolve()
    data.parent.mkdir(parents=True, exist_ok=True)
    session.env.update(COVERAGE_PROCESS_START=str(Path("pyproject.toml").resolve()), COVERAGE_FILE=str(data))
    session.run("coverage", "erase")
    session.run("python", "-m", "pytest", *session.posargs)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report")
