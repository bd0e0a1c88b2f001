"""Images like SWE-bench's: a repository in /testbed, and a conda with the environment `testbed`."""

from __future__ import annotations

import importlib.metadata
import json
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.engine import Engine

CONDA = """\
conda() {
    [ "$1" = activate ] && [ -d "/opt/miniconda3/envs/$2" ] || return 1
    export CONDA_DEFAULT_ENV="$2" PATH="/opt/miniconda3/envs/$2/bin:$PATH"
}
"""
PYTEST = """\
#!/opt/miniconda3/envs/testbed/bin/python
import sys
from pytest import console_main
sys.exit(console_main())
"""
# The environment has the repository's build requirements, so that it can be installed again without a network.
PIP = "[global]\nno-index = true\nno-build-isolation = false\nno-cache-dir = true\n"
DOCKERFILE = """\
FROM {base}
COPY activate /opt/miniconda3/bin/activate
COPY pip.conf /etc/pip.conf
RUN python3 -m venv --system-site-packages /opt/miniconda3/envs/testbed
COPY packages /opt/miniconda3/envs/testbed/lib/python3.11/site-packages
COPY pytest /opt/miniconda3/envs/testbed/bin/pytest
{install}
COPY testbed /testbed
WORKDIR /testbed
{finish}
"""
_PURE = ("pytest", "pluggy", "iniconfig", "packaging", "pygments")


@dataclass(frozen=True)
class Recipe:
    """The ingredients of an instance's image."""

    repository: Path
    install: Sequence[str] = ()
    """The packages that pip installs from the index during the build."""
    packages: Sequence[str] = _PURE
    """The packages copied from the Python that runs the tests."""
    finish: str = ""
    base: str = ""


@dataclass
class Shelf:
    """Images that are built for tests, and removed afterwards."""

    engine: Engine
    folder: Path
    repository: str = field(default_factory=lambda: f"evalkit-test/{secrets.token_hex(4)}")

    def build(self, name: str, recipe: Recipe) -> str:
        context = self.folder / name
        context.mkdir(parents=True)
        _copy_packages(recipe.packages, context / "packages")
        for file, content in {"activate": CONDA, "pip.conf": PIP, "pytest": PYTEST}.items():
            (context / file).write_text(content)
        (context / "pytest").chmod(0o755)
        shutil.copytree(recipe.repository, context / "testbed", symlinks=True)
        (context / "Dockerfile").write_text(
            DOCKERFILE.format(
                base=recipe.base or self.engine.python,
                install=_install(recipe.install),
                finish=recipe.finish,
            )
        )
        return self._build(context, f"{self.repository}:{name}")

    def _build(self, context: Path, tag: str) -> str:
        said = list(self.engine.api.build(path=str(context), tag=tag, rm=True, network_mode="host", decode=True))
        assert not any("error" in line for line in said), said[-5:]
        return tag

    def change(self, tag: str, command: str) -> str:
        """Derive an image by a command."""
        context = self.folder / secrets.token_hex(4)
        context.mkdir()
        (context / "Dockerfile").write_text(f"FROM {tag}\nRUN {command}\n")
        return self._build(context, f"{self.repository}:{context.name}")

    def clear(self) -> None:
        for image in self.engine.api.images(self.repository):
            self.engine.api.remove_image(image["Id"], force=True)


@contextmanager
def shelf(engine: Engine, folder: Path) -> Iterator[Shelf]:
    made = Shelf(engine, folder)
    try:
        yield made
    finally:
        made.clear()


def _install(requirements: Sequence[str]) -> str:
    if not requirements:
        return ""
    wanted = " ".join(f"'{each}'" for each in requirements)
    return f"RUN PIP_CONFIG_FILE=/dev/null /opt/miniconda3/envs/testbed/bin/python -m pip install -q {wanted}"


def _copy_packages(names: Sequence[str], target: Path) -> None:
    target.mkdir()
    for name in names:
        for file in importlib.metadata.files(name) or ():
            if file.parts[0] != ".." and "__pycache__" not in file.parts:
                place = target / file
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(str(file.locate()), place)


def eval_script(base: str, test_patch: str, command: str, files: Sequence[str], install: str) -> str:
    """The eval_script of a row, in the form of the data sets."""
    reset = f"git checkout {base} {' '.join(files)}"
    return f"""#!/bin/bash
set -uxo pipefail
source /opt/miniconda3/bin/activate
conda activate testbed
cd /testbed
git config --global --add safe.directory /testbed
cd /testbed
git status
git show
git -c core.fileMode=false diff {base}
source /opt/miniconda3/bin/activate
conda activate testbed
{install}
{reset}
git apply -v - <<'EOF_114329324912'
{test_patch}
EOF_114329324912
: '>>>>> Start Test Output'
{command}
: '>>>>> End Test Output'
{reset}
"""


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
