"""Plays rounds, prints each as it ends, and the document of all at the end."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from faults import table
from faults.campaign import Plan, Played, run, totals
from faults.injections import INJECTIONS
from faults.workloads import WORKLOADS
from measure import describe_machine


def main() -> int:
    options = _parse()
    if options.table:
        rounds = [each for path in options.table for each in json.loads(path.read_bytes())["rounds"]]
        sys.stdout.write(table.render(rounds))
        return 0
    numbers = [options.only] if options.only else range(options.first, options.first + options.rounds)
    plans = [Plan.draw(options.seed, number, options.workloads, options.faults) for number in numbers]
    rounds = []
    for played in run(plans, jobs=options.jobs, keep=options.keep):
        print(_describe(played), file=sys.stderr, flush=True)
        rounds.append(played.document())
    summary = totals(rounds)
    json.dump(
        {"schema": 1, "seed": options.seed, "machine": describe_machine(), **summary, "rounds": rounds}, sys.stdout
    )
    print()
    print(
        f"{summary['faults']} faults in {summary['rounds']} rounds: {summary['findings'] or 'nothing found'}",
        file=sys.stderr,
    )
    return 1 if summary["findings"] else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="faults", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="rounds to play")
    parser.add_argument("--seed", type=int, default=1, help="with its number, it decides all about a round")
    parser.add_argument("--first", type=int, default=1, metavar="NUMBER", help="the number of the first round")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="play this round again, and no other")
    parser.add_argument("--jobs", type=int, default=2, help="rounds at a time")
    parser.add_argument(
        "--workloads", type=_names(WORKLOADS), default=list(WORKLOADS), help="of: " + ", ".join(WORKLOADS)
    )
    parser.add_argument("--faults", type=_names(INJECTIONS), default=list(INJECTIONS), help="draw from these only")
    parser.add_argument("--keep", action="store_true", help="keep the folders of rounds in which something was found")
    parser.add_argument("--table", type=Path, nargs="+", metavar="FILE", help="print documents as a table in Markdown")
    return parser.parse_args()


def _names(known: Any) -> Any:
    def parse(text: str) -> Sequence[str]:
        names = [name.strip() for name in text.split(",")]
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; there are: {', '.join(known)}")
        return names

    return parse


def _describe(played: Played) -> str:
    plan = played.plan
    faults = ", ".join(
        f"{strike.fault} at {f'row {strike.after_rows} + ' if strike.after_rows else ''}{strike.seconds:.2f} s"
        + ("" if number < len(played.struck) and played.struck[number] else " (missed)")
        for number, strike in enumerate(plan.strikes)
    )
    if played.lack is not None:
        return f"{plan.number:5}  {plan.workload:7} left out: {played.lack}"
    ends = " ".join(str(each["exit"]) for each in played.commands)
    found = "".join(f"\n       {finding.kind}: {finding.detail}" for _, finding in played.findings)
    return f"{plan.number:5}  {plan.workload:7} {played.seconds:5.1f} s  exits {ends:12}  {faults}{found}"


if __name__ == "__main__":
    sys.exit(main())
