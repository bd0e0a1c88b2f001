"""Cuts a release: `make release VERSION=0.2.0`.

Gives what is unreleased in CHANGELOG.md a version and a date, sets the version of the package, commits, and tags. What
it cannot do it refuses before anything is changed. It pushes nothing: that is for a person to do, who has looked at it.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

GROUPS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")
UNRELEASED = "Unreleased"

_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")
_ASSIGNMENT = re.compile(r'^__version__ = "(.+)"$', re.MULTILINE)
_LINK = re.compile(r"^\[[^\]]+\]: .+\n?", re.MULTILINE)


class Refused(Exception):
    """There can be no release, for a reason that a person has to look at."""


def date_changelog(changelog: str, version: str, date: str, address: str) -> tuple[str, str]:
    """The changelog with a section for this version, and that section's text.

    The section is made of what is unreleased and, before it, of a section for this version that has no date yet.
    """
    links = _LINK.findall(changelog)
    head, *sections = re.split(r"^## ", _LINK.sub("", changelog), flags=re.MULTILINE)
    bodies = {title.strip(): body for title, _, body in (section.partition("\n") for section in sections)}
    if next(iter(bodies), None) != UNRELEASED:
        raise Refused(f"CHANGELOG.md does not begin with a section `## {UNRELEASED}`")
    introduction, prepared = _read_groups(bodies.pop(version, ""))
    loose, unreleased = _read_groups(bodies.pop(UNRELEASED))
    if loose:
        raise Refused(f"CHANGELOG.md has lines that stand under none of {', '.join(GROUPS)}: {loose[:80]}")
    if not (prepared or unreleased):
        raise Refused(f"CHANGELOG.md has nothing under `## {UNRELEASED}`: there is nothing to release")
    notes = "\n\n".join(filter(None, (introduction, _join(prepared, unreleased))))
    older = "".join(f"## {title}\n{body.rstrip()}\n\n" for title, body in bodies.items())
    dated = f"## [{version}] - {date}\n\n{notes}\n"
    link = f"[{version}]: {address}/releases/tag/v{version}\n"
    text = f"{head}## {UNRELEASED}\n\n{dated}\n{older}{link}{''.join(links)}"
    return text, notes


def _read_groups(body: str) -> tuple[str, dict[str, str]]:
    """What a section begins with, and its other lines by the heading that they stand under."""
    beginning, *groups = re.split(r"^### ", body, flags=re.MULTILINE)
    found = {title.strip(): lines.strip() for title, _, lines in (group.partition("\n") for group in groups)}
    if unknown := found.keys() - set(GROUPS):
        raise Refused(f"CHANGELOG.md: {', '.join(sorted(unknown))} is none of {', '.join(GROUPS)}")
    return beginning.strip(), found


def _join(*sections: dict[str, str]) -> str:
    lines = {group: [section[group] for section in sections if section.get(group)] for group in GROUPS}
    return "\n\n".join(f"### {group}\n\n" + "\n".join(texts) for group, texts in lines.items() if texts)


def set_version(module: str, version: str) -> str:
    """The module with another version. One that is there already is fine: the first release has its number before."""
    match = _ASSIGNMENT.search(module)
    if match is None:
        raise Refused('src/evalkit/__init__.py has no line `__version__ = "…"`')
    if _parts(version) < _parts(match.group(1)):
        raise Refused(f"{version} is older than {match.group(1)}, which src/evalkit/__init__.py has")
    return module[: match.start()] + f'__version__ = "{version}"' + module[match.end() :]


def _parts(version: str) -> tuple[int, ...]:
    match = _VERSION.fullmatch(version)
    if match is None:
        raise Refused(f"{version!r} is no version: three numbers, like 0.2.0")
    return tuple(map(int, match.groups()))


def find_address(pyproject: str) -> str:
    urls: dict[str, str] = tomllib.loads(pyproject)["project"]["urls"]
    if examples := [name for name, url in urls.items() if re.match(r"https?://[^/]*\.example(/|$)", url)]:
        raise Refused(f"pyproject.toml: the addresses of {', '.join(examples)} are examples: put in the project's own")
    return urls["Source"].rstrip("/")


def release(root: Path, version: str) -> None:
    _parts(version)
    tag = f"v{version}"
    if changes := _git(root, "status", "--porcelain"):
        raise Refused(f"there are changes that are not committed:\n{changes}")
    if _git(root, "tag", "--list", tag):
        raise Refused(f"there is a tag {tag} already")
    changelog, module = root / "CHANGELOG.md", root / "src" / "evalkit" / "__init__.py"
    address = find_address((root / "pyproject.toml").read_text())
    today = datetime.now(UTC).date().isoformat()
    text, notes = date_changelog(changelog.read_text(), version, today, address)
    code = set_version(module.read_text(), version)
    changelog.write_text(text)
    module.write_text(code)
    _git(root, "commit", "--quiet", "--message", f"Release {version}", str(changelog), str(module))
    _git(root, "tag", "--annotate", "--cleanup=verbatim", "--message", f"evalkit {version}\n\n{notes}\n", tag)


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Refused(f"git {arguments[0]}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip()


def main() -> NoReturn:
    if len(sys.argv) != 2:
        sys.exit("usage: tools/release.py VERSION")
    version = sys.argv[1]
    try:
        release(Path(__file__).resolve().parents[1], version)
    except Refused as refusal:
        sys.exit(f"no release: {refusal}")
    print(f"v{version} is committed and tagged. Look at it (git show v{version}), then: git push --follow-tags")
    sys.exit(0)


if __name__ == "__main__":
    main()
