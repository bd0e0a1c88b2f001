"""evalkit aggregate"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from evalkit import console, stdout
from evalkit.cli.options import configured, explain
from evalkit.domain.statistics import wilson_interval
from evalkit.errors import UsageError
from evalkit.runs.summarize import AnyRun, exit_code, facts_of, open_run, summarize
from evalkit.settings import Settings
from evalkit.store.run_directory import RunDirectory


@configured("run-dir")
def aggregate(
    settings: Settings,
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN",
            help=explain("Run directories, or ids of runs.", default="the newest run"),
            show_default=False,
        ),
    ] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD", help="Group by a field of the instances, such as repo", show_default=False),
    ] = None,
    format_: Annotated[
        Literal["json", "table"],
        typer.Option("--format", help="table: also draw a table on standard error"),
    ] = "json",
    known_bad: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also give the numbers without the instances of this list, as `grade --gold` writes it",
            show_default=False,
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Also write one run as the report of the official harness", show_default=False
        ),
    ] = None,
) -> int:
    """Print the numbers of one or more runs as one document, at any time, also while they run.

    An instance counts once, in the bucket of its best attempt over all runs. Runs of other tools are taken too: an
    OpenHands output.jsonl, a mini-swe-agent folder, SWE-bench predictions, logs of the harness or its report.

    Examples:
      evalkit aggregate | jq .resolve_rate
      evalkit aggregate runs/a runs/b --by difficulty --format table
    """
    output = settings.config.output.dir
    opened = [open_run(name, output) for name in runs] if runs else [open_run(None, output)]
    directories = list({run.path: run for run in opened}.values())
    _require_fields(directories, by or ())
    document = summarize(directories, by or ())
    if known_bad is not None:
        document["without_known_bad"] = without(document, read_bad(known_bad))
    if report is not None:
        _write_official(directories, report)
    stdout.emit(document)
    if format_ == "table":
        console.show_summary(document)
    return exit_code(document)


def read_bad(path: Path) -> frozenset[str]:
    """The instances of a list of bad ones."""
    try:
        document = json.loads(path.read_bytes())
        names = [*document["failing"], *document["flaky"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{path} is no list of bad instances: {error!r}", hint="make one with `evalkit grade --gold`"
        ) from error
    return frozenset(map(str, names))


def without(document: dict[str, Any], bad: Collection[str]) -> dict[str, Any]:
    """The rate over the instances that a reference solution resolves each time."""
    kept = {bucket: [name for name in names if name not in bad] for bucket, names in document["ids"].items()}
    total, resolved = sum(map(len, kept.values())), len(kept["resolved"])
    low, high = wilson_interval(resolved, total)
    return {
        "total": total,
        "resolved": resolved,
        "resolve_rate": {"value": resolved / total if total else None, "low": low, "high": high},
        "left_out": document["total"] - total,
    }


def _write_official(runs: Sequence[AnyRun], target: Path) -> None:
    from evalkit.runs.regrade import write_report  # what it imports is needed for this alone

    if len(runs) != 1 or not isinstance(runs[0], RunDirectory):
        raise UsageError("--report is for one run of evalkit")
    write_report(runs[0], runs[0].standing_rows(), target)


def _require_fields(directories: Sequence[AnyRun], by: Sequence[str]) -> None:
    known = {name for directory in directories for name in facts_of(directory).fields}
    for name in by:
        if name not in known:
            raise UsageError(
                f"--by {name}: the instances have no such field",
                hint=f"they have: {', '.join(sorted(known)) or 'none'}",
            )
