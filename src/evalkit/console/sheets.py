"""The documents of `aggregate` and `compare` as one table for a paper or a spreadsheet: markdown, CSV or LaTeX."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from evalkit.console.formatting import printable

SheetFormat = Literal["markdown", "csv", "latex"]
Cell = str | float | int | None
Document = Mapping[str, Any]

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    **{char: f"\\{char}" for char in "&%$#_{}"},
}
_MARKDOWN = re.compile(r"[\\`*_{}\[\]<>|~]")


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its name in CSV, which has bare numbers, its heading elsewhere, and how its numbers are shown there."""

    name: str
    heading: str
    show: str = ""
    """A format of str.format; text where there is none."""

    def text(self, cell: Cell) -> str:
        if cell is None:
            return ""
        return self.show.format(cell) if self.show else printable(" ".join(str(cell).split()))


@dataclass(frozen=True, slots=True)
class Sheet:
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]

    def write(self, form: SheetFormat) -> str:
        return {"markdown": _write_markdown, "csv": _write_csv, "latex": _write_latex}[form](self)


def _write_csv(sheet: Sheet) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([column.name for column in sheet.columns])
    writer.writerows(sheet.rows)
    return file.getvalue()


def _write_markdown(sheet: Sheet) -> str:
    lines = [
        [column.heading for column in sheet.columns],
        ["---:" if column.show else "---" for column in sheet.columns],
        *([_MARKDOWN.sub(r"\\\g<0>", text) for text in row] for row in _texts(sheet)),
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _write_latex(sheet: Sheet) -> str:
    kinds = "".join("r" if column.show else "l" for column in sheet.columns)
    lines = [
        rf"\begin{{tabular}}{{{kinds}}}",
        r"\hline",
        _latex_row([column.heading for column in sheet.columns]),
        r"\hline",
        *map(_latex_row, _texts(sheet)),
        r"\hline",
        r"\end{tabular}",
    ]
    return "".join(f"{line}\n" for line in lines)


def _latex_row(texts: Sequence[str]) -> str:
    return " & ".join("".join(_LATEX.get(char, char) for char in text) for text in texts) + r" \\"


def _texts(sheet: Sheet) -> Iterator[list[str]]:
    for row in sheet.rows:
        yield [column.text(cell) for column, cell in zip(sheet.columns, row, strict=True)]


_PERCENT, _POINTS, _NUMBER, _MONEY = "{:.1%}", "{:+.1%}", "{:,}", "${:,.2f}"
_GROUP = (Column("field", "by"), Column("value", ""))
_RATES = (
    Column("rate", "rate", _PERCENT),
    Column("rate_low", "95% low", _PERCENT),
    Column("rate_high", "95% high", _PERCENT),
)
_RUNS = (
    Column("run", "run"),
    Column("label", "what"),
    Column("total", "instances", _NUMBER),
    Column("graded", "graded", _NUMBER),
    *_RATES,
    Column("score", "score", "{:.3f}"),
    Column("cost_usd", "cost", _MONEY),
    Column("cost_usd_per_instance", "cost each", _MONEY),
    Column("input_tokens", "tokens in", _NUMBER),
    Column("output_tokens", "tokens out", _NUMBER),
    Column("seconds_p50", "median s", "{:,.1f}"),
    Column("flagged", "flagged", _NUMBER),
    Column("rate_without_flagged", "rate without", _PERCENT),
)
_BUCKETS = ("resolved", "unresolved", "ungraded", "empty", "timeout", "error", "incomplete")
_RUN_GROUPS = (
    Column("run", "run"),
    *_GROUP,
    Column("total", "instances", _NUMBER),
    *(Column(bucket, bucket, _NUMBER) for bucket in _BUCKETS),
)
_COUNTS = (
    Column("total", "compared", _NUMBER),
    Column("both", "both", _NUMBER),
    Column("only_a", "only A", _NUMBER),
    Column("only_b", "only B", _NUMBER),
    Column("neither", "neither", _NUMBER),
    Column("rate_a", "rate A", _PERCENT),
    Column("rate_b", "rate B", _PERCENT),
    Column("difference", "B - A", _POINTS),
    Column("difference_low", "95% low", _POINTS),
    Column("difference_high", "95% high", _POINTS),
)
_PAIRS = (
    Column("a", "A"),
    Column("b", "B"),
    *_COUNTS,
    Column("p_value", "p", "{:.3g}"),
    Column("cost_usd_a", "cost A", _MONEY),
    Column("cost_usd_b", "cost B", _MONEY),
)
_PAIR_GROUPS = (Column("a", "A"), Column("b", "B"), *_GROUP, *_COUNTS)


def sheet_of_runs(document: Document) -> Sheet:
    """One row for each run, or with `--by` for each group of each run."""
    documents = document.get("documents", [document])
    if any(each["groups"] for each in documents):
        return Sheet(_RUN_GROUPS, [row for each in documents for row in _group_rows(each)])
    return Sheet(_RUNS, [_run_row(each) for each in documents])


def _run_row(document: Document) -> list[Cell]:
    rate, usage = document["resolve_rate"], document["usage"]
    are_told = document["per_instance"]["tokens"]["value"] is not None
    return [
        " + ".join(document["runs"]),
        document["label"],
        document["total"],
        rate["n"],
        *(rate[key] for key in ("value", "low", "high")),
        document["score"]["value"],
        usage["cost_usd"],
        document["per_instance"]["cost_usd"]["value"],
        usage["input_tokens"] if are_told else None,
        usage["output_tokens"] if are_told else None,
        document["seconds"]["p50"],
        *_audited(document),
    ]


def _audited(document: Document) -> list[Cell]:
    audit = document.get("audit")
    return [audit["flagged"], audit["without_flagged"]["resolve_rate"]["value"]] if audit else [None, None]


def _group_rows(document: Document) -> Iterator[list[Cell]]:
    for field, groups in document["groups"].items():
        for value, group in groups.items():
            yield [
                " + ".join(document["runs"]),
                field,
                value,
                group["total"],
                *(group[bucket] for bucket in _BUCKETS),
            ]


def sheet_of_comparisons(document: Document) -> Sheet:
    """One row for each pair of runs, or with `--by` for each group of each pair."""
    documents = document.get("comparisons", [document])
    if any(each["groups"] for each in documents):
        return Sheet(_PAIR_GROUPS, [row for each in documents for row in _pair_group_rows(each)])
    return Sheet(
        _PAIRS,
        [
            [*_pair(each), *_counts(each), each["test"]["p_value"], each["cost_usd"]["a"], each["cost_usd"]["b"]]
            for each in documents
        ],
    )


def _pair_group_rows(document: Document) -> Iterator[list[Cell]]:
    for field, groups in document["groups"].items():
        for value, group in groups.items():
            yield [*_pair(document), field, value, *_counts(group)]


def _pair(document: Document) -> list[Cell]:
    return [document["runs"]["a"], document["runs"]["b"]]


def _counts(numbers: Document) -> list[Cell]:
    counts = [numbers[key] for key in ("total", "both", "only_a", "only_b", "neither")]
    rates = [numbers["resolve_rate"][letter] for letter in "ab"]
    return [*counts, *rates, *(numbers["difference"][key] for key in ("value", "low", "high"))]
