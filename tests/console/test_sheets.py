"""Tables for papers and spreadsheets."""

from __future__ import annotations

import csv
import io

from evalkit.console.sheets import Column, Sheet, sheet_of_comparisons, sheet_of_runs
from evalkit.domain.comparison import compare
from evalkit.domain.planning import Attempts
from evalkit.domain.results import Row, Usage, Verdict
from evalkit.domain.summary import RunFacts, Tally

ODD = Sheet(
    (Column("run", "run"), Column("rate", "rate", "{:.1%}"), Column("cost_usd", "cost", "${:,.2f}")),
    [
        [r"a_b & 50% of #1 {x}~y^z\w", 0.5, 1234.5],
        ['p|q, "r" <s> *t* [u] $v', None, None],
        ["two\nlines\x1b[31m", 1, 0],
    ],
)


def test_markdown() -> None:
    assert ODD.write("markdown").splitlines() == [
        "| run | rate | cost |",
        "| --- | ---: | ---: |",
        r"| a\_b & 50% of #1 \{x\}\~y^z\\w | 50.0% | $1,234.50 |",
        r'| p\|q, "r" \<s\> \*t\* \[u\] $v |  |  |',
        r"| two lines\\x1b\[31m | 100.0% | $0.00 |",
    ]


def test_latex() -> None:
    assert ODD.write("latex").splitlines() == [
        r"\begin{tabular}{lrr}",
        r"\hline",
        r"run & rate & cost \\",
        r"\hline",
        r"a\_b \& 50\% of \#1 \{x\}\textasciitilde{}y\textasciicircum{}z\textbackslash{}w & 50.0\% & \$1,234.50 \\",
        r"p\textbar{}q, \textquotedbl{}r\textquotedbl{} \textless{}s\textgreater{} *t* [u] \$v &  &  \\",
        r"two lines\textbackslash{}x1b[31m & 100.0\% & \$0.00 \\",
        r"\hline",
        r"\end{tabular}",
    ]


def test_csv_has_bare_numbers_and_reads_back() -> None:
    rows = list(csv.reader(io.StringIO(ODD.write("csv"))))
    assert rows[0] == ["run", "rate", "cost_usd"]
    assert rows[1:3] == [[r"a_b & 50% of #1 {x}~y^z\w", "0.5", "1234.5"], ['p|q, "r" <s> *t* [u] $v', "", ""]]
    assert rows[3][0] == "two\nlines\x1b[31m"


def tally(name: str, verdicts: dict[str, Verdict]) -> Tally:
    ids = list(verdicts)
    facts = RunFacts(name, ids, Attempts(1, "never"), {"repo": [each[0] for each in ids]}, label="tasks nop")
    counted = Tally([facts])
    usage = Usage(input_tokens=100, output_tokens=10, cost_usd=0.5)
    counted.add(
        [
            Row(instance_id=each, attempt=1, outcome="submitted", verdict=verdict, usage=usage, seconds=2.0)
            for each, verdict in verdicts.items()
        ]
    )
    return counted


BEFORE = tally("runs/a_1", {"p-1": "resolved", "p-2": "unresolved", "q-1": "unresolved", "q-2": "resolved"})
AFTER = tally("runs/b", {"p-1": "resolved", "p-2": "resolved", "q-1": "resolved", "q-2": "resolved"})


def test_a_run_is_a_row_of_the_aggregate() -> None:
    document = BEFORE.summary()
    assert sheet_of_runs(document).write("csv").splitlines() == [
        "run,label,total,graded,rate,rate_low,rate_high,score,cost_usd,cost_usd_per_instance,input_tokens,"
        "output_tokens,seconds_p50,flagged,rate_without_flagged",
        f"runs/a_1,tasks nop,4,4,0.5,{document['resolve_rate']['low']},{document['resolve_rate']['high']},0.5,2.0,0.5,"
        f"400,40,{document['seconds']['p50']},,",
    ]
    several = {"documents": [document, AFTER.summary()]}
    markdown = sheet_of_runs(several).write("markdown").splitlines()
    assert len(markdown) == 4
    assert markdown[2].startswith(
        r"| runs/a\_1 | tasks nop | 4 | 4 | 50.0% | 15.0% | 85.0% | 0.500 | $2.00 | $0.50 | 400 |"
    )


def test_tokens_that_an_agent_does_not_tell_are_left_blank() -> None:
    counted = Tally([RunFacts("runs/c", ["p-1"], Attempts(1, "never"), {}, label="tasks command")])
    counted.add([Row(instance_id="p-1", attempt=1, outcome="submitted", verdict="resolved", seconds=2.0)])
    (names, values) = csv.reader(io.StringIO(sheet_of_runs(counted.summary()).write("csv")))
    found = dict(zip(names, values, strict=True))
    assert (found["input_tokens"], found["output_tokens"], found["rate"]) == ("", "", "1.0")


def test_groups_are_rows_where_they_are_asked_for() -> None:
    assert sheet_of_runs(BEFORE.summary(by=["repo"])).write("csv").splitlines() == [
        "run,field,value,total,resolved,unresolved,ungraded,empty,timeout,error,incomplete",
        "runs/a_1,repo,p,2,1,1,0,0,0,0,0",
        "runs/a_1,repo,q,2,1,1,0,0,0,0,0",
    ]


def test_a_comparison_is_a_row() -> None:
    names, by = ("runs/a_1", "runs/b"), {"repo": BEFORE.values_of("repo")}
    document = compare(names, BEFORE.sampled(), AFTER.sampled())
    (_, line) = csv.reader(io.StringIO(sheet_of_comparisons(document).write("csv")))
    assert line[:10] == ["runs/a_1", "runs/b", "4", "2", "0", "2", "0", "0.5", "1.0", "0.5"]
    assert line[12:] == [str(document["test"]["p_value"]), "2.0", "2.0"]
    grouped = compare(names, BEFORE.sampled(), AFTER.sampled(), by)
    latex = sheet_of_comparisons(grouped).write("latex").splitlines()
    assert latex[4].startswith(r"runs/a\_1 & runs/b & repo & p & 2 & 1 & 0 & 1 & 0 & 50.0\% & 100.0\% & +50.0\% & ")
    assert len([line for line in latex if "& repo &" in line]) == 2
