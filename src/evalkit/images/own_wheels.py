"""Wheels of this evalkit for agents that depend on it: from this installation, and never from an index."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import tarfile
import tomllib
import zipfile
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import evalkit
from evalkit.domain.json_values import mapping_of, texts_of
from evalkit.errors import UsageError
from evalkit.system.installation import DISTRIBUTION

OLD_NAME = "evalkit"
"""The former name of the distribution; on package indexes, it belongs to an unrelated project."""
_NAME = re.compile(r"\s*([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)")
_WHEEL = "Wheel-Version: 1.0\nGenerator: evalkit\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def depends_on_evalkit(requirements: Iterable[str]) -> bool:
    names = (found[1] for each in requirements if (found := _NAME.match(each)))
    return any(re.sub(r"[-_.]+", "-", name).lower() in (DISTRIBUTION, OLD_NAME) for name in names)


def requirements_of(sdist: Path) -> list[str]:
    """The requirements that a project declares, from every place in its sdist where they can stand."""
    found: list[str] = []
    with tarfile.open(sdist) as archive:
        for member in archive:
            place = Path(member.name)
            reader = _READERS.get(place.name) if len(place.parts) <= _DEPTH and member.isreg() else None
            if reader and (file := archive.extractfile(member)):
                found += reader(file.read().decode("utf-8", "replace"))
    return found


_DEPTH = 4  # project/src/project.egg-info/requires.txt


def _read_metadata(text: str) -> list[str]:
    head = text.partition("\n\n")[0]
    return [line.partition(":")[2].strip() for line in head.splitlines() if line.lower().startswith("requires-dist:")]


def _read_pyproject(text: str) -> list[str]:
    try:
        project = mapping_of(tomllib.loads(text).get("project"))
    except (tomllib.TOMLDecodeError, RecursionError):
        return []  # its own build reports the error
    optional = mapping_of(project.get("optional-dependencies")).values()
    return [*texts_of(project.get("dependencies")), *(each for extra in optional for each in texts_of(extra))]


_READERS: dict[str, Callable[[str], list[str]]] = {
    "PKG-INFO": _read_metadata,
    "pyproject.toml": _read_pyproject,
    "requires.txt": str.splitlines,
}


def pack(folder: Path) -> tuple[Path, ...]:
    """A wheel of this evalkit, and one under the old name that only requires it. Same files give the same bytes."""
    try:
        installed = distribution(DISTRIBUTION)
    except PackageNotFoundError:
        raise UsageError(
            "the agent depends on evalkit, and this evalkit runs without being installed",
            hint="install it: `pip install -e .` in its checkout",
        ) from None
    return (
        _write(folder, DISTRIBUTION, installed.version, _files(installed)),
        _write(folder, OLD_NAME, installed.version, {"METADATA": _metadata_of_old_name(installed).encode()}),
    )


def _files(installed: Distribution) -> dict[str, bytes]:
    """The files by their paths in the wheel; those without a folder belong to its metadata."""
    package = Path(evalkit.__file__).parent
    paths = [path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    files = {path.relative_to(package.parent).as_posix(): path.read_bytes() for path in paths}
    for name in ("METADATA", "entry_points.txt"):
        files[name] = (installed.read_text(name) or "").encode()
    return files


def _metadata_of_old_name(installed: Distribution) -> str:
    version = installed.version
    lines = ["Metadata-Version: 2.1", f"Name: {OLD_NAME}", f"Version: {version}"]
    lines.append(f"Requires-Dist: {DISTRIBUTION}=={version}")
    for extra in installed.metadata.get_all("Provides-Extra") or ():
        lines += [f"Provides-Extra: {extra}", f'Requires-Dist: {DISTRIBUTION}[{extra}]=={version}; extra == "{extra}"']
    return "\n".join(lines) + "\n"


def _write(folder: Path, name: str, version: str, files: Mapping[str, bytes]) -> Path:
    stem = f"{name.replace('-', '_')}-{version}"
    info = f"{stem}.dist-info"
    content = {place if "/" in place else f"{info}/{place}": text for place, text in files.items()}
    content[f"{info}/WHEEL"] = _WHEEL.encode()
    rows = [f"{place},sha256={_digest(text)},{len(text)}\n" for place, text in sorted(content.items())]
    content[f"{info}/RECORD"] = "".join([*rows, f"{info}/RECORD,,\n"]).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as wheel:
        for place, text in sorted(content.items()):
            entry = zipfile.ZipInfo(place)  # dated 1980, as in other reproducible archives
            entry.external_attr = 0o100644 << 16
            wheel.writestr(entry, text, zipfile.ZIP_DEFLATED)
    path = folder / f"{stem}-py3-none-any.whl"
    path.write_bytes(buffer.getvalue())
    return path


def _digest(content: bytes) -> str:
    """The hash of a file in RECORD: https://packaging.python.org/specifications/recording-installed-packages."""
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
