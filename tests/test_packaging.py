"""What people get: the wheel and the source distribution, built for real and looked into."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMPLETIONS = ("_evalkit", "evalkit.bash", "evalkit.fish")
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def sdist(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, unpacked."""
    (archive,) = built.glob("*.tar.gz")
    place = tmp_path_factory.mktemp("sdist")
    with tarfile.open(archive) as opened:
        opened.extractall(place, filter="data")
    (folder,) = place.iterdir()
    return folder


@pytest.mark.slow
def test_the_wheel_has_the_licence_the_completions_and_nothing_beside_the_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        licences = [name for name in names if name.endswith(".dist-info/licenses/LICENSE")]
        assert [archive.read(name) for name in licences] == [(ROOT / "LICENSE").read_bytes()]
        for name in COMPLETIONS:
            assert archive.read(f"evalkit/completions/{name}") == (ROOT / "completions" / name).read_bytes()
    assert all(name.startswith("evalkit/") or ".dist-info/" in name for name in names)


@pytest.mark.slow
def test_completion_is_printed_where_the_wheel_is_installed(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    done = subprocess.run(
        [sys.executable, "-m", "evalkit", "completion", "fish"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        check=True,
    )
    assert done.stdout == (ROOT / "completions" / "evalkit.fish").read_bytes()


def test_the_pages_of_the_source_distribution_link_to_what_is_in_it(sdist: Path) -> None:
    pages = [*sdist.glob("*.md"), *sdist.glob("docs/*.md"), *sdist.glob("examples/*/README.md")]
    assert {"README.md", "CHANGELOG.md"} <= {page.name for page in pages}
    missing = [
        f"{page.relative_to(sdist)}: {target}"
        for page in pages
        for target in LINK.findall(page.read_text())
        if not (page.parent / target).exists()
    ]
    assert missing == []


def test_the_source_distribution_has_what_its_tests_and_its_makefile_need(sdist: Path) -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if tracked.returncode != 0:
        pytest.skip("this is no git checkout")
    of_the_repository_alone = (".github/", ".pre-commit-config.yaml")
    expected = {name for name in tracked.stdout.splitlines() if not name.startswith(of_the_repository_alone)}
    assert {name for name in expected if (ROOT / name).is_file() and not (sdist / name).is_file()} == set()


def test_the_pythons_that_are_promised_are_those_that_are_tested() -> None:
    workflow = ROOT / ".github" / "workflows" / "tests.yml"
    if not workflow.exists():
        pytest.skip("this is no git checkout")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    promised = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    (tested,) = re.findall(r"python: \[(.+)\]", workflow.read_text())
    assert promised == re.findall(r"3\.\d+", tested)
    assert project["requires-python"] == f">={promised[0]}"


@pytest.mark.slow
def test_a_first_run_works_from_the_wheel_in_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    packages, folder = tmp_path / "packages", tmp_path / "empty"
    folder.mkdir()
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(packages)]
    subprocess.run([*install, str(wheel)], check=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("EVALKIT_", "PYTHON"))}
    environment = kept | {"PYTHONPATH": str(packages)}
    where = [sys.executable, "-c", "import evalkit; print(evalkit.__file__)"]
    found = subprocess.run(where, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    assert Path(found.stdout.strip()).is_relative_to(packages)
    command = [sys.executable, "-m", "evalkit", "infer", "--quiet", "--limit", "3"]
    finished = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout)["buckets"]["resolved"] == 3


def test_a_checkout_that_is_installed_editable_adds_nothing_but_a_way_to_itself(tmp_path: Path) -> None:
    program = f"from hatchling.build import build_editable; build_editable({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        beside = [name for name in archive.namelist() if ".dist-info/" not in name]
    assert len(beside) == 1
    assert beside[0].endswith(".pth")
