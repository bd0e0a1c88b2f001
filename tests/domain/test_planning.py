"""What rows say, for any sequence of rows: every instance is in one bucket, and resume's set is exact."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from evalkit.domain.planning import BUCKETS, Attempts, Ledger, Standing, plan
from evalkit.domain.results import Failure, Row, Usage
from evalkit.domain.summary import RunFacts, Tally

IDS = ("a", "b", "c", "d")
OUTCOMES = ("submitted", "empty", "timeout", "error")
VERDICTS = ("resolved", "unresolved", "ungraded")


@st.composite
def rows(draw: st.DrawFn) -> Row:
    outcome = draw(st.sampled_from(OUTCOMES))
    verdict = "ungraded" if outcome in ("error", "empty") else draw(st.sampled_from(VERDICTS))
    kind = draw(st.sampled_from(("oom", "agent", "budget", "a-kind-of-tomorrow")))
    return Row(
        instance_id=draw(st.sampled_from((*IDS, "stranger"))),
        attempt=draw(st.integers(1, 4)),
        outcome=outcome,  # type: ignore[arg-type]  # sampled from its values
        verdict=verdict,  # type: ignore[arg-type]  # sampled from its values
        failure=Failure(kind=kind) if outcome == "error" else None,
        usage=Usage(cost_usd=draw(st.sampled_from((None, 0.0, 0.5))), input_tokens=draw(st.integers(0, 9))),
        seconds=draw(st.floats(0, 10_000)),
        accepted=outcome != "error" and draw(st.booleans()),
    )


ATTEMPTS = st.builds(Attempts, st.integers(1, 4), st.sampled_from(("critic", "never")))
KINDS = st.sets(st.sampled_from(("error", "timeout", "empty", "oom", "agent")))


def slow_best(history: Sequence[Row], name: str, attempt: int) -> Row | None:
    """The row that stands: the last that is no error, else the last error."""
    mine = [row for row in history if (row.instance_id, row.attempt) == (name, attempt)]
    good = [row for row in mine if row.outcome != "error"]
    rows = good or mine
    return rows[-1] if rows else None


def slow_pending(history: Sequence[Row], name: str, attempts: Attempts, retry: set[str]) -> set[int]:
    settled = {}
    for number in range(1, 5):
        row = slow_best(history, name, number)
        if row is None:
            continue
        kinds = {row.outcome, row.failure.kind if row.failure else None}
        if row.verdict == "resolved" or not kinds & retry:
            settled[number] = row
    if attempts.stop_on == "critic" and any(row.accepted for row in settled.values()):
        return set()
    return set(range(1, attempts.count + 1)) - set(settled)


def ledger_of(history: Sequence[Row]) -> Ledger:
    ledger = Ledger.of(IDS)
    for row in history:
        ledger.record(row)
    return ledger


@given(st.lists(rows(), max_size=30), ATTEMPTS, KINDS)
def test_resume_takes_exactly_what_is_not_done(history: list[Row], attempts: Attempts, retry: set[str]) -> None:
    steps = plan(ledger_of(history).standings, attempts, retry)
    planned = [(step.instance_id, number) for step in steps for number in (step.attempt, *step.then)]
    expected = {(name, number) for name in IDS for number in slow_pending(history, name, attempts, retry)}
    assert len(planned) == len(set(planned))
    assert set(planned) == expected
    assert [step.attempt for step in steps] == sorted(step.attempt for step in steps) or attempts.stop_on == "critic"


@given(st.lists(rows(), max_size=30))
def test_buckets_add_up(history: list[Row]) -> None:
    tally = Tally([RunFacts("run", IDS, Attempts())])
    for start in range(0, len(history), 3):
        tally.add(history[start : start + 3])
    summary = tally.summary()
    assert sum(summary["buckets"].values()) == summary["total"] == len(IDS)
    assert tuple(summary["buckets"]) == BUCKETS
    assert sorted(name for names in summary["ids"].values() for name in names) == sorted(IDS)
    known = [row for row in history if row.instance_id in IDS]
    assert summary["usage"]["input_tokens"] == sum(row.usage.input_tokens for row in known)


@given(st.lists(st.tuples(st.integers(0, 2), rows()), max_size=30))
def test_buckets_of_several_runs_add_up(history: list[tuple[int, Row]]) -> None:
    """Equal attempts of different runs are different attempts."""
    names = (IDS[:2], IDS[1:], IDS)
    tally = Tally([RunFacts(f"run-{index}", ids, Attempts()) for index, ids in enumerate(names)])
    for index, row in history:
        tally.add([row], index)
    summary = tally.summary()
    assert sum(summary["buckets"].values()) == summary["total"] == len(IDS)
    assert sorted(name for listed in summary["ids"].values() for name in listed) == sorted(IDS)
    stands = [(index, name) for index, ids in enumerate(names) for name in ids]
    resolved = {
        name
        for index, name in stands
        for number in range(1, 5)
        if (best := slow_best([each for at, each in history if at == index], name, number)) is not None
        and best.verdict == "resolved"
    }
    assert set(summary["ids"]["resolved"]) == resolved


@given(st.lists(rows(), max_size=30), rows())
def test_an_error_never_replaces_a_result(history: list[Row], last: Row) -> None:
    before, after = ledger_of(history), ledger_of([*history, last])
    for name in IDS:
        if before.standings[name].bucket not in ("error", "incomplete"):
            assert after.standings[name].bucket != "incomplete"
            if last.outcome == "error" and (name, last.attempt) in {(r.instance_id, r.attempt) for r in history}:
                assert after.standings[name].bucket == before.standings[name].bucket


@given(st.lists(rows(), max_size=20))
def test_rows_that_come_twice_count_as_once(history: list[Row]) -> None:
    def buckets(lines: Sequence[Row]) -> dict[str, str]:
        return {name: standing.bucket for name, standing in ledger_of(lines).standings.items()}

    assert buckets([row for row in history for _ in range(2)]) == buckets(history)


@given(st.lists(rows(), max_size=20), ATTEMPTS)
def test_a_run_that_is_finished_needs_no_more(history: list[Row], attempts: Attempts) -> None:
    """Taking every planned step leaves nothing to plan, whatever was there before."""
    ledger = ledger_of(history)
    for step in plan(ledger.standings, attempts, ("error",)):
        for number in (step.attempt, *step.then):
            ledger.record(Row(instance_id=step.instance_id, attempt=number, outcome="submitted", verdict="unresolved"))
    assert plan(ledger.standings, attempts, ("error",)) == []


def test_a_resolved_time_out_is_not_tried_again() -> None:
    standing = Standing()
    ledger = Ledger({"a": standing})
    ledger.record(Row(instance_id="a", attempt=1, outcome="timeout", verdict="resolved"))
    assert plan(ledger.standings, Attempts(), ("timeout",)) == []
    assert standing.bucket == "resolved"
