"""evalkit compare"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from evalkit import console, stdout
from evalkit.cli.options import configured
from evalkit.console.formatting import amount, money, precise_duration
from evalkit.domain.comparison import MCNEMAR, is_worse
from evalkit.errors import ExitCode, UsageError
from evalkit.runs.identity import name_differences
from evalkit.runs.paired_runs import compare_tallies
from evalkit.runs.summarize import AnyRun, open_run, require_fields, tally
from evalkit.settings import Settings
from evalkit.store.run_directory import RunDirectory

_MOST_NAMED = 10
_WIDEST_NAME = 40
_TESTS = {MCNEMAR: "McNemar", "sign flip, exact": "sign-flip", "sign flip, random": "sign-flip"}


@configured("run-dir")
def compare(
    settings: Settings,
    run_a: Annotated[str, typer.Argument(metavar="RUN_A", help="The run to compare with")],
    run_b: Annotated[str, typer.Argument(metavar="RUN_B", help="The run in question")],
    more: Annotated[
        list[str] | None,
        typer.Argument(metavar="RUN", help="More runs, each compared with the first", show_default=False),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="FIELD",
            help="Widen intervals for instances that come in clusters, such as repo",
            show_default=False,
        ),
    ] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD", help="Compare by a field of the instances too, such as repo", show_default=False),
    ] = None,
    format_: Annotated[
        Literal["table", "markdown", "csv", "latex"],
        typer.Option("--format", help="The table on standard error: for people, papers or spreadsheets"),
    ] = "table",
    target: Annotated[
        Path | None,
        typer.Option(
            "--output", metavar="FILE", help="Write the markdown, csv or latex to this file", show_default=False
        ),
    ] = None,
    fail_if_worse: Annotated[
        float | None,
        typer.Option(
            metavar="[POINTS]",
            min=0,
            help="Exit with 1 where B is worse than A: beyond chance, or by more than so many percentage points",
            show_default=False,
        ),
    ] = None,
) -> int:
    """Compare runs on the instances that both have a verdict on: what each resolved, and whether chance explains it.

    The difference is B minus A, with a paired 95 % interval: McNemar and Newcombe for one attempt each, differences of
    the means of instances for repeats. The exit code is 1 where there is nothing to compare. Runs of other tools work
    too: a job of Harbor, a log of Inspect, an OpenHands output.jsonl, a mini-swe-agent folder, logs of the SWE-bench
    harness or its report. `notes` say where data or graders of the two differ.

    Examples:
      evalkit compare runs/before runs/after
      evalkit compare runs/before runs/after --by repo
      evalkit compare runs/before runs/after --format csv --output compared.csv
      evalkit compare runs/before runs/after --fail-if-worse 2   # in CI
      evalkit compare logs/run_evaluation/theirs runs/ours | jq .test.p_value
    """
    if target is not None and format_ == "table":
        raise UsageError("--output is for tables", hint="add --format markdown, csv or latex")
    opened = [open_run(name, settings.config.output.dir) for name in (run_a, run_b, *(more or ()))]
    require_fields(opened, "--cluster", [cluster] if cluster else ())
    require_fields(opened, "--by", by or ())
    names = [str(run.path) for run in opened]
    document = compare_tallies(names, [tally([run]) for run in opened], by or (), cluster)
    comparisons = document.get("comparisons", [document])
    for each, run in zip(comparisons, opened[1:], strict=True):
        each["notes"] = list(_name_differences(opened[0], run))
    sheet = None
    if format_ != "table":
        from evalkit.console.sheets import sheet_of_comparisons  # seldom needed

        sheet = sheet_of_comparisons(document).write(format_)
    if sheet is not None and target is not None:
        console.write_sheet(sheet, target)
    stdout.emit(document)
    if sheet is not None and target is None:
        console.show_sheet(sheet)
    else:
        for line in (line for each in comparisons for line in render(each)):
            console.say(line)
        console.name_report(names)
    if not all(each["total"] for each in comparisons):
        return ExitCode.INCOMPLETE
    worse = fail_if_worse is not None and any(is_worse(each, fail_if_worse) for each in comparisons)
    return ExitCode.INCOMPLETE if worse else ExitCode.DONE


def render(document: dict[str, Any]) -> Iterable[str]:
    """The comparison as a table for people."""
    yield f"A  {document['runs']['a']}"
    yield f"B  {document['runs']['b']}"
    yield from (f"note: {note}" for note in document["notes"])
    yield from _left_out(document)
    if document["total"]:
        yield f"{'':12}{'A':>12}{'B':>12}"
        yield from _rows(document)
        yield from _differences(document)
        yield from _by_group(document["groups"])
    yield document["conclusion"]


def _name_differences(a: AnyRun, b: AnyRun) -> Iterator[str]:
    """Differences of data and grader, which only runs of evalkit record."""
    if isinstance(a, RunDirectory) and isinstance(b, RunDirectory):
        yield from name_differences(a.manifest, b.manifest)


def _tokens(total: float | None) -> str:
    return "unknown" if total is None else amount(round(total))


def _rows(document: Mapping[str, Any]) -> Iterator[str]:
    rate, cost, seconds = document["resolve_rate"], document["cost_usd"], document["seconds"]
    yield f"{'resolved':12}{document['both'] + document['only_a']:>12}{document['both'] + document['only_b']:>12}"
    yield f"{'rate':12}{rate['a']:>12.1%}{rate['b']:>12.1%}"
    score = document["score"]
    if (score["a"], score["b"]) != (rate["a"], rate["b"]):
        yield f"{'mean score':12}{score['a']:>12.3f}{score['b']:>12.3f}"
    yield f"{'cost':12}{_dollars(cost['a']):>12}{_dollars(cost['b']):>12}"
    if any(document["tokens"][letter] for letter in "ab"):
        yield f"{'tokens':12}{_tokens(document['tokens']['a']):>12}{_tokens(document['tokens']['b']):>12}"
    yield f"{'time':12}{_time(seconds['a']):>12}{_time(seconds['b']):>12}"
    yield (
        f"of {document['total']}: both {document['both']}, only A {document['only_a']}, "
        f"only B {document['only_b']}, neither {document['neither']}"
    )


def _differences(document: Mapping[str, Any]) -> Iterator[str]:
    difference, test, cost = document["difference"], document["test"], document["cost_usd"]["difference"]
    holm = " after Holm" if "correction" in test else ""
    yield (
        f"B - A = {difference['value']:+.1%}, 95 % interval {difference['low']:+.1%} to {difference['high']:+.1%}, "
        f"{_TESTS[test['method']]} p = {test['p_value']:.3g}{holm}"
    )
    if cost["low"] is not None and (cost["low"] or cost["high"]):
        low, value, high = (_signed(cost[key]) for key in ("low", "value", "high"))
        yield f"cost of an instance, B - A: {value}, 95 % interval {low} to {high}"
    for kind, what in (("only_a", "lost"), ("only_b", "gained")):
        if names := document["ids"][kind]:
            rest = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
            yield f"{what}: {', '.join(names[:_MOST_NAMED])}{rest}"


def _by_group(groups: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """The groups of each field, the largest first."""
    for field, values in groups.items():
        width = max(12, *(min(len(value), _WIDEST_NAME) for value in values))
        yield f"{f'by {field}':{width}}{'of':>8}{'A':>9}{'B':>9}{'B - A':>10}   95 % interval"
        for value, group in sorted(values.items(), key=lambda each: -each[1]["total"]):
            rate, difference = group["resolve_rate"], group["difference"]
            interval = "" if difference["low"] is None else f"{difference['low']:+.1%} to {difference['high']:+.1%}"
            yield (
                f"{value[:_WIDEST_NAME] or '-':{width}}{group['total']:>8}{rate['a']:>9.1%}{rate['b']:>9.1%}"
                f"{difference['value']:>+10.1%}   {interval}"
            )


def _left_out(document: Mapping[str, Any]) -> Iterator[str]:
    left_out = document["left_out"]
    if not left_out["total"]:
        return
    reasons = []
    words = {"absent": "not in it", "not_run": "not run", "not_graded": "not graded", "error": "in error"}
    for letter in "ab":
        parts = [f"{count} {words[reason]}" for reason, count in left_out[letter].items() if count]
        if parts:
            reasons.append(f"{letter.upper()}: {', '.join(parts)}")
    count = "1 instance is" if left_out["total"] == 1 else f"{left_out['total']} instances are"
    yield f"{count} left out ({'; '.join(reasons)})"


def _signed(usd: float) -> str:
    return f"{'-' if usd < 0 else '+'}{money(abs(usd))}"


def _time(seconds: float) -> str:
    """The time of all instances; runs of other tools may have none."""
    return precise_duration(seconds) if seconds else "unknown"


def _dollars(cost: float | None) -> str:
    return "unknown" if cost is None else f"${cost:.2f}"
