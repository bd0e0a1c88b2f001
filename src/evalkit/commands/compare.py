"""evalkit compare"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import typer

from evalkit import console, stdout
from evalkit.cli.options import configured
from evalkit.domain.comparison import Standing
from evalkit.domain.comparison import compare as compare_standings
from evalkit.domain.planning import Ledger
from evalkit.runs.summarize import AnyRun, facts_of, open_run, readable
from evalkit.settings import Settings


@configured("run-dir")
def compare(
    settings: Settings,
    run_a: Annotated[
        str,
        typer.Argument(metavar="RUN_A", help="The run to compare with"),
    ],
    run_b: Annotated[
        str,
        typer.Argument(metavar="RUN_B", help="The run in question"),
    ],
) -> int:
    """Compare two runs on the instances that both have: what each resolved, and whether chance explains the difference.

    The difference is B minus A, with a paired 95 % interval and an exact McNemar test. Runs of other tools are taken
    too: an OpenHands output.jsonl, a mini-swe-agent folder, logs of the SWE-bench harness or its report.

    Examples:
      evalkit compare runs/before runs/after
      evalkit compare logs/run_evaluation/theirs runs/ours | jq .mcnemar.p_value
    """
    output = settings.config.output.dir
    a, b = open_run(run_a, output), open_run(run_b, output)
    document = compare_standings((str(a.path), str(b.path)), _stand(a), _stand(b))
    for line in render(document):
        console.say(line)
    stdout.emit(document)
    return 0


def _stand(run: AnyRun) -> dict[str, Standing]:
    """Where a run stands with each of its instances."""
    ledger = Ledger.of(facts_of(run).instance_ids)
    standings = {name: Standing() for name in ledger.standings}
    for row in readable(run.rows()):
        ledger.record(row)
        if (standing := standings.get(row.instance_id)) is not None:
            standing.seconds += row.seconds
            cost = row.usage.cost_usd
            standing.cost_usd = None if cost is None or standing.cost_usd is None else standing.cost_usd + cost
    for name, standing in standings.items():
        standing.bucket = ledger.standings[name].bucket
        standing.resolved = standing.bucket == "resolved"
    return standings


def render(document: dict[str, Any]) -> Iterable[str]:
    """The comparison as a table for people."""
    rate, difference, test = document["resolve_rate"], document["difference"], document["mcnemar"]
    yield f"A  {document['runs']['a']}"
    yield f"B  {document['runs']['b']}"
    if not document["total"]:
        yield "no instance is in both runs, so nothing can be compared"
        return
    yield f"{'':12}{'A':>12}{'B':>12}"
    yield f"{'resolved':12}{document['both'] + document['only_a']:>12}{document['both'] + document['only_b']:>12}"
    yield f"{'rate':12}{rate['a']:>12.1%}{rate['b']:>12.1%}"
    cost, seconds = document["cost_usd"], document["seconds"]
    yield f"{'cost':12}{_dollars(cost['a']):>12}{_dollars(cost['b']):>12}"
    yield f"{'hours':12}{_hours(seconds['a']):>12}{_hours(seconds['b']):>12}"
    yield f"{'unfinished':12}{document['unfinished']['a']:>12}{document['unfinished']['b']:>12}"
    yield (
        f"of {document['total']}: both {document['both']}, only A {document['only_a']}, "
        f"only B {document['only_b']}, neither {document['neither']}"
    )
    yield (
        f"B - A = {difference['value']:+.1%}, 95 % interval {difference['low']:+.1%} to {difference['high']:+.1%}, "
        f"McNemar p = {test['p_value']:.3g}"
    )
    for letter in ("a", "b"):
        if ungraded := document["ungraded"][letter]:
            yield f"{ungraded} instances of {letter.upper()} are not graded and count as not resolved: `evalkit grade`"
    for letter in ("a", "b"):
        if alone := document["unpaired"][letter]:
            yield f"{len(alone)} instances are only in {letter.upper()} and are not compared"


def _hours(seconds: float) -> str:
    """Runs of other tools may tell no times."""
    return f"{seconds / 3600:.2f}" if seconds else "unknown"


def _dollars(cost: float | None) -> str:
    return "unknown" if cost is None else f"${cost:.2f}"
