"""The table of a campaign: a line for each fault."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from faults.injections import INJECTIONS
from faults.workloads import WORKLOADS

_COLUMNS = ("row lost", "row doubled", "wrong verdict", "left over")
_HEADS = ("rows lost", "rows doubled", "wrong verdicts", "left over", "other")


def render(rounds: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: how often each fault struck each workload, and what was found after it."""
    struck: Counter[tuple[str, str]] = Counter()
    found: Counter[tuple[str, str]] = Counter()
    for each in rounds:
        for strike in each["strikes"]:
            struck[strike["fault"], each["workload"]] += strike["struck"]
        for finding in each["findings"]:
            fault = each["strikes"][max(finding["strike"], 0)]["fault"]
            found[fault, finding["kind"] if finding["kind"] in _COLUMNS else "other"] += 1
    lines = [_line(["fault", *WORKLOADS, *_HEADS]), _line(["---", *["---:"] * (len(WORKLOADS) + len(_HEADS))])]
    for name, injection in INJECTIONS.items():
        counts = [
            str(struck[name, workload.name]) if injection.needs <= workload.has else ""
            for workload in WORKLOADS.values()
        ]
        lines.append(_line([name, *counts, *(str(found[name, column]) for column in (*_COLUMNS, "other"))]))
    sums = [sum(count for (_, each), count in struck.items() if each == name) for name in WORKLOADS]
    ends = [sum(count for (_, each), count in found.items() if each == column) for column in (*_COLUMNS, "other")]
    lines.append(_line(["**all**", *(f"**{each}**" for each in (*sums, *ends))]))
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
