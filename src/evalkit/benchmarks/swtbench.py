"""SWT-bench: write tests that fail because of an issue, and pass once it is repaired.

An answer is judged by what its tests do before and after the reference repair, beside what the tests of the repository
do without it. All runs are made in one workspace, from the same clean state; those without the answer are kept for
later attempts at the same instance.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import anyio.to_thread

from evalkit.benchmarks import swebench_graders as graders
from evalkit.benchmarks.artifacts import set_aside
from evalkit.benchmarks.datasets import Row, read_rows
from evalkit.benchmarks.patches import describe_patch
from evalkit.benchmarks.repository import Repository
from evalkit.benchmarks.swebench_rows import END_OF_TESTS, START_OF_TESTS, to_instance
from evalkit.config import Config
from evalkit.domain.failures import Failed
from evalkit.domain.models import Answer, Grade, Instance, Job
from evalkit.domain.protocols import Workspace
from evalkit.errors import DatasetError

DATASET = "princeton-nlp/SWE-bench_Verified"
PLACE = PurePosixPath("/testbed")
REPORT, PATCH = "report.json", "patch.diff"
_KILLED = 137
_ASK = """{issue}

Do not repair this. Write tests for it, in the test files of the repository and in their style: they must fail now, and
pass once the issue is repaired. Change nothing but tests; whatever else you change is not looked at.
"""
_RENAMED = {"patch": "golden_code_patch", "test_patch": "golden_test_patch"}
_TEST_FOLDERS = frozenset({"test", "tests", "testing", "e2e"})
_TEST_FILE = re.compile(r"test_.*\.py|.*_test\.py|tests\.py|conftest\.py")
_SECTION = re.compile(rb"^diff --git ", re.MULTILINE)
_HEADER = re.compile(rb'diff --git "?a/(.*?)"? "?b/(.*?)"?\n')
_FILE = re.compile(r'^diff --git "?a/.*? "?b/(.*?)"?$', re.MULTILINE)

Statuses = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Runs:
    """What tests did before and after the reference repair."""

    before: Statuses
    after: Statuses

    @property
    def repaired(self) -> set[str]:
        """Tests that the repair makes pass."""
        return {test for test, status in self.after.items() if _passes(status) and not _passes(self.before.get(test))}

    @property
    def failing(self) -> set[str]:
        """Tests that fail although all is repaired."""
        return {test for test, status in self.after.items() if status in ("FAILED", "ERROR")}


def is_resolved(answer: Runs, base: Runs) -> bool:
    """The repair makes at least one more test pass, all that it made pass anyway, and no other one fails after it."""
    gained = answer.repaired - base.repaired
    return bool(gained) and base.repaired <= answer.repaired and not (answer.failing - base.failing)


def _passes(status: str | None) -> bool:
    return status in ("PASSED", "XFAIL")


@dataclass(frozen=True, slots=True)
class SwtBench:
    dataset: str
    split: str
    reference: Path | None = None
    exclude: tuple[str, ...] = ()
    place: PurePosixPath | None = PLACE

    @property
    def grader_version(self) -> str:
        return f"swtbench 1, swebench {graders.load().version}"

    def load(self) -> Iterable[Instance]:
        excluded = read_excluded(self.reference, self.dataset)
        for row in read_rows(self.dataset, self.split):
            instance = to_instance(_with_usual_names(row))
            if instance.id not in excluded:
                yield instance.model_copy(update={"statement": _ASK.format(issue=instance.statement)})

    def grader_network(self, _instance: Instance) -> str:
        return "bridge"  # as for SWE-bench, whose scripts install the repository again

    async def prepare(self, job: Job, workspace: Workspace) -> None:
        await self.repository(workspace).scrub(_row(job)["base_commit"], job.scratch)

    async def apply_solution(self, job: Job, workspace: Workspace) -> None:
        if refusal := await self.apply(_row(job)["test_patch"], job, workspace):
            raise Failed("agent", f"the reference tests of {job.instance.id} do not apply: {refusal}")

    async def collect(self, job: Job, workspace: Workspace) -> Answer:
        start = (job.scratch / "start").read_text().split()[-1]
        full, patch = job.folder / "full.diff", job.folder / PATCH
        await self.repository(workspace).diff(start, full, self.exclude)
        patch.write_bytes(keep_tests(full.read_bytes()))
        return describe_patch(patch, job)

    async def grade(self, job: Job, answer: Answer, workspace: Workspace) -> Grade:
        assert answer.patch is not None
        set_aside(job.folder, REPORT, "runs")
        patch = (job.run_folder / answer.patch.path).read_bytes().decode("utf-8", "surrogateescape")
        grading = _Grading(self, job, workspace)
        await grading.begin()
        files = sorted({*_FILE.findall(patch), *_FILE.findall(_row(job)["test_patch"])})
        pred = await grading.run("pred", patch, files)
        base = await grading.run_once("base", "", files)
        gold = await grading.run_once("gold", _row(job)["test_patch"], files)
        if base is None or gold is None:
            raise Failed("grader", f"the reference patches of {job.instance.id} do not apply")
        resolved = pred is not None and is_resolved(pred, base)
        runs = {"pred": pred, "base": base, "gold": gold}
        report = {
            "resolved": resolved,
            "patch_successfully_applied": pred is not None,
            "added_f2p": sorted(pred.repaired - base.repaired) if pred else [],
            "gold_f2p": sorted(gold.repaired - base.repaired),
            "coverage_delta_pred": None,
            "tests": {name: {"before": each.before, "after": each.after} for name, each in runs.items() if each},
        }
        (job.folder / REPORT).write_text(json.dumps({job.instance.id: report}, indent=1))
        return Grade(verdict="resolved" if resolved else "unresolved", score=float(resolved))

    async def apply(self, patch: str, job: Job, workspace: Workspace) -> str | None:
        job.scratch.mkdir(parents=True, exist_ok=True)
        place = job.scratch / "applied.diff"
        place.write_bytes(patch.encode("utf-8", "surrogateescape"))
        refusal = await self.repository(workspace).apply(place)
        place.unlink()
        return refusal

    def repository(self, workspace: Workspace) -> Repository:
        return Repository(workspace, self.place or workspace.places.work)


@dataclass(slots=True)
class _Grading:
    """The runs that one answer is judged by."""

    benchmark: SwtBench
    job: Job
    workspace: Workspace
    start: str = ""

    async def begin(self) -> None:
        repository = self.benchmark.repository(self.workspace)  # one thing in two parts
        self.start = await repository.scrub(_row(self.job)["base_commit"], self.job.scratch)

    async def run_once(self, name: str, tests: str, files: Sequence[str]) -> Runs | None:
        """Like run, from what an earlier grading kept for the very same row and files, if one did."""
        key = hashlib.sha256(json.dumps([name, self.job.instance.digest, files]).encode()).hexdigest()
        kept = self.job.run_folder / "cache" / f"{key}.json"
        with suppress(OSError, ValueError, KeyError):
            found = json.loads(kept.read_bytes())
            return Runs(found["before"], found["after"])
        runs = await self.run(name, tests, files)
        if runs is not None:
            kept.parent.mkdir(exist_ok=True)
            draft = kept.with_suffix(f".{self.job.scratch.name}")
            draft.write_text(json.dumps({"before": runs.before, "after": runs.after}))
            draft.replace(kept)
        return runs

    async def run(self, name: str, tests: str, files: Sequence[str]) -> Runs | None:
        """What the tests of these files do before and after the repair; None where a patch does not apply."""
        statuses = []
        for moment, code in (("before", ""), ("after", _row(self.job)["patch"])):
            await self._reset()
            for patch in filter(None, (code, tests)):
                if await self.benchmark.apply(patch, self.job, self.workspace):  # likewise
                    return None
            statuses.append(await self._run_tests(f"{name}-{moment}", files))
        return Runs(*statuses)

    async def _reset(self) -> None:
        repository = self.benchmark.repository(self.workspace)  # likewise
        await repository.reset(self.start)

    async def _run_tests(self, name: str, files: Sequence[str]) -> Statuses:
        log = self.job.folder / "runs" / f"{name}.txt"
        log.parent.mkdir(exist_ok=True)
        script = self.workspace.places.logs / "grader" / "tests.sh"
        await self.workspace.write(make_script(_row(self.job), files).encode("utf-8", "surrogatepass"), script)
        place = self.benchmark.place or self.workspace.places.work
        end = await self.workspace.exec(("/bin/bash", str(script)), cwd=place, stdout=log, stderr=log)
        if end.code == _KILLED or end.lacked_memory:
            raise Failed("oom", "a process of the tests was killed for lack of memory")
        return await anyio.to_thread.run_sync(graders.read_statuses, _row(self.job), log)


def make_script(row: Mapping[str, Any], files: Sequence[str]) -> str:
    """The row's script, for other test files: without the reference tests, which it would apply."""
    script = row.get("eval_script")
    if not isinstance(script, str) or START_OF_TESTS not in script or END_OF_TESTS not in script:
        raise Failed("grader", f"{row['instance_id']} has no eval_script with marked tests")
    before, _, rest = script.partition(f": '{START_OF_TESTS}'\n")
    command = rest.partition(f": '{END_OF_TESTS}'")[0].strip().rpartition("\n")[2]
    before = re.sub(r"^git apply [^\n]*<<'(\w+)'\n.*?^\1\n", "", before, flags=re.DOTALL | re.MULTILINE)
    before = re.sub(rf"^git checkout {re.escape(row['base_commit'])}\b[^\n]*\n", "", before, flags=re.MULTILINE)
    return f"{before}: '{START_OF_TESTS}'\n{make_command(row, command, files)}\n: '{END_OF_TESTS}'\n"


def make_command(row: Mapping[str, Any], command: str, files: Sequence[str]) -> str:
    """The command of a row, with these files in the place of its own."""
    takes_labels = "runtests.py" in command
    own = {name for file in _FILE.findall(row["test_patch"]) for name in (file, _label(file))}
    words = [word for word in command.split(" ") if word not in own]
    chosen = [file for file in files if file.endswith(".py") and not file.endswith("conftest.py")]
    names = dict.fromkeys(_label(file) if takes_labels else file for file in chosen)
    return " ".join(
        [*words, *(f"$(ls {name} 2>/dev/null)" if not takes_labels else name for name in map(_quote, names))]
    )


def _label(file: str) -> str:
    return file.removesuffix(".py").removeprefix("tests/").replace("/", ".")


def _quote(name: str) -> str:
    return "'" + name.replace("'", "'\\''") + "'"


def keep_tests(patch: bytes) -> bytes:
    """The parts of a patch that are about tests."""
    starts = [match.start() for match in _SECTION.finditer(patch)]
    sections = [patch[start:end] for start, end in zip(starts, [*starts[1:], len(patch)], strict=True)]
    return b"".join(section for section in sections if _is_of_tests(section))


def _is_of_tests(section: bytes) -> bool:
    header = _HEADER.match(section)
    if header is None:
        return False
    path = PurePosixPath(header[2].decode("utf-8", "replace"))
    if len(path.parts) == 1 and b"\nnew file mode" in section[:4096]:
        return False  # notes and scripts that agents leave beside the code
    return _TEST_FILE.fullmatch(path.name) is not None or not _TEST_FOLDERS.isdisjoint(path.parts[:-1])


def read_excluded(reference: Path | None, dataset: str) -> frozenset[str]:
    """The ids that the benchmark leaves out, from a file, or from the list for this data set in a directory."""
    if reference is None:
        return frozenset()
    path = reference
    if reference.is_dir():
        kind = next((kind for kind in ("lite", "verified") if kind in dataset.lower()), "full")
        path = reference / f"filter_cases_{kind}.txt"
    try:
        return frozenset(path.read_text().split())
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"benchmark.reference: the excluded ids {path} cannot be read: {error}") from error


def _with_usual_names(row: Row) -> Row:
    """The row with the columns of SWE-bench, whichever of the two schemas it has."""
    values = dict(row.values)
    for usual, other in _RENAMED.items():
        if not values.get(usual) and other in values:
            values[usual] = values[other]
    renamed = replace(row, values=values)
    for column in _RENAMED:
        renamed.text(column)
    return renamed


def _row(job: Job) -> Mapping[str, Any]:
    assert isinstance(job.instance.data, Mapping)
    return job.instance.data


def create(config: Config) -> SwtBench:
    return SwtBench(
        dataset=config.benchmark.dataset or DATASET,
        split=config.benchmark.split,
        reference=config.benchmark.reference,
        exclude=config.benchmark.exclude,
        place=None if config.workspace_kind == "local" else PLACE,
    )
