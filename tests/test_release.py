"""Cutting a release, in a repository of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CHANGELOG = """# Changelog

What changed.

## Unreleased

### Fixed

- A late line.

### Added

- One thing more.

## 0.2.0

Better than before.

### Added

- A thing.

## [0.1.0] - 2026-01-01

### Added

- Everything.

[0.1.0]: https://forge.invalid/evalkit/releases/tag/v0.1.0
"""


class Repository:
    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "tools").mkdir(parents=True)
        (root / "src" / "evalkit").mkdir(parents=True)
        shutil.copy(ROOT / "tools" / "release.py", root / "tools")
        self.write("CHANGELOG.md", CHANGELOG)
        self.write("src/evalkit/__init__.py", '"""Evaluate."""\n\n__version__ = "0.1.0"\n\n__all__ = ["__version__"]\n')
        self.write("pyproject.toml", '[project.urls]\nSource = "https://forge.invalid/evalkit"\n')
        self.git("init", "--quiet", "--initial-branch=main")
        self.git("config", "user.name", "A. Maintainer")
        self.git("config", "user.email", "a@maintainer.invalid")
        self.commit()

    def write(self, name: str, text: str) -> None:
        (self.root / name).write_text(text)

    def read(self, name: str) -> str:
        return (self.root / name).read_text()

    def git(self, *arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=self.root, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "Work")

    def state(self) -> tuple[str, ...]:
        return self.git("rev-parse", "HEAD"), self.git("status", "--porcelain"), self.git("tag")

    def release(self, version: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "tools/release.py", version]
        return subprocess.run(command, cwd=self.root, check=False, capture_output=True, text=True)

    def refused(self, version: str) -> str:
        """What it says, having changed nothing."""
        before = self.state()
        done = self.release(version)
        assert done.returncode == 1
        assert self.state() == before
        assert "Traceback" not in done.stderr
        return done.stderr


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


def test_a_release_is_dated_committed_and_tagged(repository: Repository) -> None:
    before = datetime.now(UTC).date().isoformat()
    done = repository.release("0.2.0")
    assert done.returncode == 0, done.stderr
    changelog = repository.read("CHANGELOG.md")
    assert any(f"## [0.2.0] - {date}\n" in changelog for date in (before, datetime.now(UTC).date().isoformat()))
    assert repository.read("src/evalkit/__init__.py").count('__version__ = "0.2.0"\n') == 1
    assert repository.git("status", "--porcelain") == ""
    assert repository.git("log", "-1", "--format=%s") == "Release 0.2.0"
    assert repository.git("rev-parse", "v0.2.0^{commit}") == repository.git("rev-parse", "HEAD")
    assert "### Fixed\n\n- A late line." in repository.git("tag", "--list", "v0.2.0", "--format=%(contents)")


def test_what_was_unreleased_joins_the_section_of_its_version(repository: Repository) -> None:
    repository.release("0.2.0")
    _, unreleased, released, first = repository.read("CHANGELOG.md").split("\n## ")
    assert unreleased.strip() == "Unreleased"
    assert released.partition("\n\n")[2].strip() == (
        "Better than before.\n\n### Added\n\n- A thing.\n- One thing more.\n\n### Fixed\n\n- A late line."
    )
    assert first.endswith(
        "- Everything.\n\n"
        "[0.2.0]: https://forge.invalid/evalkit/releases/tag/v0.2.0\n"
        "[0.1.0]: https://forge.invalid/evalkit/releases/tag/v0.1.0\n"
    )


def test_the_next_release_begins_where_this_one_ended(repository: Repository) -> None:
    repository.release("0.2.0")
    assert "there is nothing to release" in repository.refused("0.3.0")
    text = repository.read("CHANGELOG.md").replace("## Unreleased\n", "## Unreleased\n\n### Changed\n\n- More.\n")
    repository.write("CHANGELOG.md", text)
    repository.commit()
    assert repository.release("0.3.0").returncode == 0
    assert repository.git("tag") == "v0.2.0\nv0.3.0"


def test_changes_that_are_not_committed_stop_it(repository: Repository) -> None:
    repository.write("notes.txt", "")
    assert "notes.txt" in repository.refused("0.2.0")


def test_a_version_is_released_once(repository: Repository) -> None:
    repository.git("tag", "v0.2.0")
    assert "there is a tag v0.2.0 already" in repository.refused("0.2.0")


@pytest.mark.parametrize("version", ["0.2", "v0.2.0", "0.2.0rc1", "next", ""])
def test_a_version_has_three_numbers(repository: Repository, version: str) -> None:
    assert "like 0.2.0" in repository.refused(version)


def test_versions_go_up(repository: Repository) -> None:
    assert "0.0.9 is older than 0.1.0" in repository.refused("0.0.9")


def test_addresses_that_are_examples_are_not_published(repository: Repository) -> None:
    repository.write("pyproject.toml", '[project.urls]\nSource = "https://git.example/evalkit"\n')
    repository.commit()
    assert "Source are examples" in repository.refused("0.2.0")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("# Changelog\n\n## 0.2.0\n\n### Added\n\n- A thing.\n", "does not begin with a section `## Unreleased`"),
        ("# Changelog\n\n## Unreleased\n\n- A thing.\n", "stand under none of Added"),
        ("# Changelog\n\n## Unreleased\n\n### Improved\n\n- A thing.\n", "Improved is none of Added"),
    ],
)
def test_a_changelog_that_users_could_not_read_stops_it(repository: Repository, text: str, complaint: str) -> None:
    repository.write("CHANGELOG.md", text)
    repository.commit()
    assert complaint in repository.refused("0.2.0")


def test_the_changelog_of_this_project_can_be_released(repository: Repository) -> None:
    repository.write("CHANGELOG.md", (ROOT / "CHANGELOG.md").read_text())
    repository.write("src/evalkit/__init__.py", (ROOT / "src" / "evalkit" / "__init__.py").read_text())
    repository.commit()
    done = repository.release("99.0.0")
    assert done.returncode == 0 or "there is nothing to release" in done.stderr, done.stderr
