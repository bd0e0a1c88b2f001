"""Draws the document of `aggregate`, or of a finished run, as tables."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from evalkit.console.formatting import amount, bar, money, percent, precise_duration, printable
from evalkit.console.page import NARROWEST, Page, grid, table_of_facts
from evalkit.console.render import STYLES
from evalkit.errors import first_few

_WIDEST = 100
_WIDEST_BAR = 30
_GROUP_BAR = 20
_RATE_BAR = 10
_MOST_GROUPS = 40
_MOST_NAMED = 5
_LONGEST_MESSAGE = 200
_LEAST_SHARE = 0.5
Document = Mapping[str, Any]


def render(document: Document, *, columns: int, styled: bool, blocks: bool = False) -> str:
    """`blocks` says whether the reader's terminal has block characters."""
    page = Page(columns=columns, widest=_WIDEST, styled=styled)
    page.add(*_sections(document, blocks, is_wide=columns >= _WIDEST))
    return page.text


def _sections(document: Document, blocks: bool, *, is_wide: bool) -> Iterator[RenderableType]:
    if "documents" in document:
        yield _listed(document, blocks, is_wide=is_wide)
        return
    for sentence in document.get("notes", ()):
        yield Text(printable(sentence), "bold")
    yield _buckets(document, blocks)
    yield table_of_facts(_numbers(document))
    for field, groups in document["groups"].items():
        yield _groups(field, groups, blocks)
    if "run" in document:
        yield table_of_facts(_where(document))


def _listed(document: Document, blocks: bool, *, is_wide: bool) -> Table:
    """Runs that measure different things, one per line. Those that no other beats in both cost and rate are marked.

    Bars are drawn where there is room.
    """
    table = grid()
    table.add_column(overflow="fold")
    table.add_column(overflow="fold")
    audited = any(each.get("audit") for each in document["documents"])
    names = (
        "of",
        "rate",
        *([""] if is_wide else []),
        "95% interval",
        "each",
        *(["flagged"] if audited else []),
        "Pareto",
    )
    for name in names:
        table.add_column(justify="right" if name else "left", no_wrap=True)
    table.add_row("run", "", *names, style="bold")
    best = [tuple(each["runs"]) for each in document["pareto"]]
    for each in document["documents"]:
        rate, cost = each["resolve_rate"], each["per_instance"]["cost_usd"]["value"]
        table.add_row(
            Text(printable(" + ".join(name.rstrip("/").rpartition("/")[2] or name for name in each["runs"]))),
            Text(printable(each["label"])),
            f"{rate['n']}/{each['total']}",
            "-" if rate["value"] is None else percent(rate["value"]),
            *([bar(rate["value"] or 0.0, _RATE_BAR, blocks=blocks)] if is_wide else []),
            "-" if rate["value"] is None else _interval(rate),
            "-" if cost is None else money(cost),
            *([str(each["audit"]["flagged"]) if each.get("audit") else "-"] if audited else []),
            "*" if tuple(each["runs"]) in best else "",
        )
    return table


def _buckets(document: Document, blocks: bool) -> Table:
    table = grid()
    table.add_column(min_width=NARROWEST)
    table.add_column(justify="right")
    table.add_column(justify="right")
    table.add_column(no_wrap=True)
    total = document["total"]
    for bucket, count in document["buckets"].items():
        if count:
            share = count / total
            drawn = Text(bar(share, _WIDEST_BAR, blocks=blocks), STYLES.get(bucket, ""))
            table.add_row(bucket, str(count), percent(share), drawn)
    table.add_row("total", str(total), "", "", style="bold")
    return table


def _numbers(document: Document) -> Iterator[tuple[str, str]]:
    rate = document["resolve_rate"]
    if rate["value"] is not None:
        of = f" of {rate['n']} with a verdict" if rate.get("n", document["total"]) != document["total"] else ""
        yield "resolve rate", f"{percent(rate['value'])}{of}, {rate['confidence']:.0%} interval {_interval(rate)}"
    yield from _scores(document)
    pass_at = {k: value for k, value in document["pass_at"].items() if value is not None}
    if len(pass_at) > 1:
        yield "pass@k", "  ".join(f"{k}: {percent(value)}" for k, value in pass_at.items())
    if "repeats" in document:
        all_of = document["repeats"]["pass_all"]
        yield "pass^k", "  ".join(f"{k}: {percent(found['value'])}" for k, found in all_of.items())
    if document["failures"]:
        ordered = sorted(document["failures"].items(), key=lambda each: -each[1])
        yield "failures", ", ".join(f"{count} {kind}" for kind, count in ordered)
        yield from _alike(document.get("failures_alike", ()))
    if document.get("suspicious"):
        yield "suspicious", f"{document['suspicious']} instances; their rows say why"
    if (audit := document.get("audit")) and audit["flagged"]:
        rest = audit["without_flagged"]["resolve_rate"]["value"]
        without = "" if rest is None else f"; without them {percent(rest)} resolved"
        rules = ", ".join(f"{count} {name}" for name, count in audit["by_rule"].items())
        yield "flagged", f"{audit['flagged']} instances by the audit ({rules}){without}"
    if near := list(_near_limits(document.get("resources", {}))):
        yield "limits", f"{', '.join(near)}; of {document['resources']['measured']} instances measured"
    if document["usage"]["llm_calls"] or document["usage"]["cost_usd"]:
        yield "usage", _usage(document["usage"])
    seconds = document["seconds"]
    if seconds["total"]:
        yield (
            "time",
            f"half within {precise_duration(seconds['p50'])}, 95% within {precise_duration(seconds['p95'])}, "
            + (f"{precise_duration(seconds['total'])} in all"),
        )
    unreadable = document.get("unreadable")
    if unreadable:
        yield "unreadable", f"{len(unreadable)} line{'' if len(unreadable) == 1 else 's'} of results cannot be read"


def _alike(groups: Sequence[Document]) -> Iterator[tuple[str, str]]:
    """Failures by their message, the most frequent ones."""
    for group in groups[:_MOST_NAMED]:
        message = " ".join(group["message"].split())
        cut = f"{message[:_LONGEST_MESSAGE]}…" if len(message) > _LONGEST_MESSAGE else message
        yield "", f"{group['count']}× {group['kind']}: {cut}"
    if len(groups) > _MOST_NAMED:
        yield "", f"and {len(groups) - _MOST_NAMED} other messages"


def _near_limits(resources: Document) -> Iterator[str]:
    words = {
        "near_memory_limit": "used 90% of memory_limit",
        "near_cpu_limit": "waited for CPUs more than 20% of the time",
        "out_of_memory": "had processes killed for lack of memory",
    }
    for key, what in words.items():
        if count := resources.get(key):
            yield f"{count} {what}"


def _interval(estimate: Document) -> str:
    return f"{percent(estimate['low'])} to {percent(estimate['high'])}"


def _scores(document: Document) -> Iterator[tuple[str, str]]:
    """The mean score, where it differs from the rate."""
    score = document.get("score", {"value": None})
    if score["value"] is not None and score["value"] != document["resolve_rate"]["value"]:
        interval = "" if score["low"] is None else f", 95% interval {score['low']:.3f} to {score['high']:.3f}"
        yield "mean score", f"{score['value']:.3f}{interval}"
    if passed := document.get("metrics", {}).get("tests_ratio"):
        yield "tests passed", f"{percent(passed['mean'])}, 95% interval {_interval(passed)}"
    for name, metric in document.get("metrics", {}).items():
        if "mean_missing_as_zero" in metric and metric["instances"] >= _LEAST_SHARE * document["total"]:
            lacking = f"{metric['mean']:.3f} of {metric['instances']} instances; {metric['missing']} attempts lack it"
            yield printable(name), f"{lacking}: {metric['mean_missing_as_zero']:.3f} with 0 for them, as Harbor counts"
    clusters = document.get("clusters")
    if clusters:
        largest = "" if clusters["largest"] is None else f", the largest has {percent(clusters['largest'])} of them"
        yield "clusters", f"{clusters['count']} by {clusters['field']}{largest}"
    for key, name in (("per_instance", "per instance"), ("per_resolved", "per resolved")):
        costs = {kind: each for kind, each in document.get(key, {}).items() if each["value"] is not None}
        if any(costs[kind]["value"] for kind in ("cost_usd", "tokens") if kind in costs):
            yield name, ", ".join(_costs(costs, document["total"]))


def _costs(costs: Document, total: int) -> Iterator[str]:
    if "cost_usd" in costs:
        cost = costs["cost_usd"]
        interval = "" if cost["low"] is None else f" ({money(max(0.0, cost['low']))} to {money(cost['high'])})"
        yield money(cost["value"]) + interval + (f" of {cost['n']} that tell" if cost["n"] < total else "")
    if "tokens" in costs and costs["tokens"]["value"]:
        yield f"{amount(round(costs['tokens']['value']))} tokens"
    if "seconds" in costs:
        yield precise_duration(costs["seconds"]["value"])


def _usage(usage: Document) -> str:
    parts = [f"{amount(usage['llm_calls'])} calls", f"{amount(usage['input_tokens'])} tokens in"]
    if usage.get("cached_tokens"):
        parts.append(f"{amount(usage['cached_tokens'])} of them cached")
    parts.append(f"{amount(usage['output_tokens'])} out")
    if usage["cost_usd"] is not None:
        unknown = usage.get("cost_unknown", 0)
        parts.append(money(usage["cost_usd"]) + (f" and what {unknown} attempts do not tell" if unknown else ""))
    return ", ".join(parts)


def _groups(field: str, groups: Mapping[str, Document], blocks: bool) -> Table:
    table = grid()
    table.add_column(min_width=NARROWEST, overflow="ellipsis", no_wrap=True)
    table.add_column(justify="right")
    table.add_column(justify="right")
    table.add_column(justify="right")
    table.add_column(justify="right")
    table.add_column(no_wrap=True)
    table.add_row(Text(f"by {printable(field)}"), "resolved", "of", "rate", "95%", "", style="bold")
    ordered = sorted(groups.items(), key=lambda each: -each[1]["total"])
    for name, group in ordered[:_MOST_GROUPS]:
        rate = group["resolve_rate"]
        is_known = rate["value"] is not None
        table.add_row(
            Text(printable(name) or "-"),
            str(group["resolved"]),
            str(group["total"]),
            percent(rate["value"]) if is_known else "",
            f"{100 * rate['low']:.0f}-{100 * rate['high']:.0f}%" if is_known else "",
            Text(bar(rate["value"] or 0.0, _GROUP_BAR, blocks=blocks), STYLES["resolved"]),
        )
    if len(ordered) > _MOST_GROUPS:
        table.add_row(f"+ {len(ordered) - _MOST_GROUPS} more", "", "", "", "", "", style="dim")
    return table


def _where(document: Document) -> Iterator[tuple[str, str]]:
    run = document["run"]
    yield "run", run
    unfinished = [*document["ids"]["error"], *document["ids"]["incomplete"]]
    if unfinished:
        yield "not done", first_few(unfinished, _MOST_NAMED)
    if document.get("resumable", len(unfinished)):
        yield "next", f"evalkit resume {shlex.quote(run)}"
    elif document.get("unsupported"):
        yield "next", "leave out with --select what cannot run here; resume would not try it again"
    else:
        yield "next", f"evalkit aggregate {shlex.quote(run)} --format table"
