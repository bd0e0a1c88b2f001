"""The statistics of two runs on the same instances."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from evalkit.domain.comparison import Pairs, compare, compare_many, is_worse, mcnemar, paired_interval
from evalkit.domain.estimates import mean_of
from evalkit.domain.planning import Attempts
from evalkit.domain.results import Failure, Row, Usage
from evalkit.domain.samples import Sampled
from evalkit.domain.summary import RunFacts, Tally


@pytest.mark.parametrize(
    ("only_a", "only_b", "p_value"),
    [(0, 0, 1.0), (0, 1, 1.0), (0, 5, 0.0625), (1, 9, 22 / 1024), (5, 5, 1.0), (2, 10, 2 * (1 + 12 + 66) / 4096)],
)
def test_mcnemar_is_the_exact_binomial_test(only_a: int, only_b: int, p_value: float) -> None:
    assert mcnemar(Pairs(100, only_a, only_b, 7)) == pytest.approx(p_value)
    assert mcnemar(Pairs(0, only_b, only_a, 0)) == pytest.approx(p_value), "which run is which does not matter"


def test_mcnemar_of_many_instances() -> None:
    assert 0.0 < mcnemar(Pairs(0, 900, 1100, 0)) < 1e-4


@pytest.mark.parametrize("pairs", [Pairs(36, 12, 2, 0), Pairs(0, 0, 0, 5), Pairs(5, 0, 0, 0), Pairs(1, 20, 0, 3)])
def test_the_interval_holds_the_difference_and_turns_with_the_runs(pairs: Pairs) -> None:
    low, high = paired_interval(pairs)
    rate_a, rate_b = pairs.rates
    assert -1.0 <= low <= rate_b - rate_a <= high <= 1.0
    turned = paired_interval(Pairs(pairs.both, pairs.only_b, pairs.only_a, pairs.neither))
    assert turned == pytest.approx((-high, -low))


def test_pairing_makes_the_interval_narrower_than_two_independent_ones() -> None:
    agreeing, opposed = paired_interval(Pairs(45, 5, 5, 45)), paired_interval(Pairs(5, 45, 45, 5))
    assert agreeing[1] - agreeing[0] < opposed[1] - opposed[0]


@pytest.mark.parametrize("chances", [(0.4, 0.1, 0.1, 0.4), (0.3, 0.05, 0.25, 0.4), (0.2, 0.2, 0.1, 0.5)])
def test_the_interval_covers_the_truth_as_often_as_it_says(chances: tuple[float, ...]) -> None:
    """Exactly: the sum of the chances of all tables of 20 instances whose interval holds the true difference."""
    truth, total, covered = chances[2] - chances[1], 20, 0.0
    for both in range(total + 1):
        for only_a in range(total + 1 - both):
            for only_b in range(total + 1 - both - only_a):
                counts = (both, only_a, only_b, total - both - only_a - only_b)
                low, high = paired_interval(Pairs(*counts))
                if low <= truth <= high:
                    ways = math.factorial(total)
                    for count in counts:
                        ways //= math.factorial(count)
                    covered += ways * math.prod(chance**count for chance, count in zip(chances, counts, strict=True))
    assert 0.93 < covered < 0.995


def run(verdicts: dict[str, str], *, fields: dict[str, str] | None = None, cost: float | None = 1.0) -> Sampled:
    """A run by what its attempts at each instance came to: r for resolved, u unresolved, ? ungraded, e an error."""
    ids, most = list(verdicts), max(map(len, verdicts.values()), default=1)
    kinds = {"r": ("submitted", "resolved"), "u": ("submitted", "unresolved"), "?": ("submitted", "ungraded")}
    known = {"repo": [fields[name] for name in ids]} if fields else {}
    tally = Tally([RunFacts("run", ids, Attempts(most, "never"), known)])
    for name, letters in verdicts.items():
        for attempt, letter in enumerate(letters, 1):
            outcome, verdict = kinds.get(letter, ("error", "ungraded"))
            failure = Failure(kind="engine") if outcome == "error" else None
            usage = Usage(cost_usd=cost)
            row: Any = {"outcome": outcome, "verdict": verdict, "failure": failure, "usage": usage, "seconds": 10.0}
            tally.add([Row(instance_id=name, attempt=attempt, **row)])
    return tally.sampled("repo" if fields else None)


def test_only_what_both_have_a_verdict_on_is_compared_and_the_rest_is_counted() -> None:
    a = run({"x": "r", "y": "u", "open": "?", "failed": "e", "only here": "r", "not run": ""})
    b = run({"y": "r", "x": "r", "open": "r", "failed": "r", "there": "u", "not run": "r"}, cost=None)
    document = compare(("A", "B"), a, b)
    assert document["ids"] == {"both": ["x"], "only_a": [], "only_b": ["y"], "neither": []}
    assert (document["both"], document["only_b"], document["total"]) == (1, 1, 2)
    assert document["difference"]["value"] == 0.5
    assert document["left_out"] == {
        "total": 5,
        "a": {"absent": 1, "not_run": 1, "not_graded": 1, "error": 1},
        "b": {"absent": 1, "not_run": 0, "not_graded": 0, "error": 0},
    }
    assert document["cost_usd"]["a"] == 2.0
    assert document["cost_usd"]["b"] is None, "an unknown cost makes the sum unknown"
    assert document["unfinished"] == {"a": 2, "b": 0}
    assert document["ungraded"] == {"a": 1, "b": 0}
    assert document["unpaired"] == {"a": ["only here"], "b": ["there"]}


def test_the_same_answers_ungraded_are_no_worse() -> None:
    names = [f"i{number}" for number in range(100)]
    document = compare(("A", "B"), run(dict.fromkeys(names, "?")), run(dict.fromkeys(names, "r")))
    assert document["total"] == 0
    assert document["difference"]["value"] is document["mcnemar"]["p_value"] is document["test"]["p_value"] is None
    for kind in ("resolve_rate", "score", "cost_usd", "tokens", "seconds"):
        assert document[kind]["a"] is document[kind]["b"] is None, kind
    assert "nothing can be compared" in document["conclusion"]
    assert not is_worse(document, 0)


def test_more_attempts_make_no_difference() -> None:
    """One attempt against three of the very same agent: best of three would look far better."""
    chance = random.Random(3)
    once, thrice = {}, {}
    for number in range(400):
        letters = "".join(chance.choices("ru", k=4))
        once[f"i{number}"], thrice[f"i{number}"] = letters[0], letters[1:]
    document = compare(("A", "B"), run(once), run(thrice))
    assert abs(document["difference"]["value"]) < 0.08
    assert document["test"]["p_value"] > 0.05
    assert document["test"]["method"] == "sign flip, exact"
    assert "no evidence" in document["conclusion"]


def test_clusters_widen_the_interval_and_the_p_value() -> None:
    names = [f"i{number}" for number in range(40)]
    fields = {name: f"repo {number % 4}" for number, name in enumerate(names)}
    a = {name: "u" if fields[name] in ("repo 0", "repo 1") else "r" for name in names}
    b = dict.fromkeys(names, "r")
    plain = compare(("A", "B"), run(a), run(b))
    clustered = compare(("A", "B"), run(a, fields=fields), run(b, fields=fields))
    assert plain["difference"]["value"] == clustered["difference"]["value"] == 0.5
    assert plain["test"]["p_value"] < 1e-5
    assert clustered["test"]["p_value"] == 0.5, "two clusters that differ could both have turned either way"
    assert clustered["difference"]["low"] < plain["difference"]["low"]


def test_worse_beyond_chance_and_by_points() -> None:
    names = [f"i{number}" for number in range(50)]
    good = run(dict.fromkeys(names, "r"))
    little = run({name: "u" if number < 2 else "r" for number, name in enumerate(names)})
    much = run({name: "u" if number < 20 else "r" for number, name in enumerate(names)})
    small, large = compare(("A", "B"), good, little), compare(("A", "B"), good, much)
    assert (is_worse(small, 0), is_worse(small, 3), is_worse(small, 5)) == (False, True, False)
    assert (is_worse(large, 0), is_worse(large, 50)) == (True, False)
    assert not is_worse(compare(("A", "B"), much, good), 0)
    assert "B is worse by 40.0 points" in large["conclusion"]
    assert "with these 50 instances only differences above about" in small["conclusion"]


def test_several_runs_are_corrected_for_their_number() -> None:
    names = [f"i{number}" for number in range(30)]
    others = [run({name: "r" if number < good else "u" for number, name in enumerate(names)}) for good in (6, 7, 8)]
    document = compare_many(["A", "B", "C", "D"], [run(dict.fromkeys(names, "u")), *others])
    tests = [each["test"] for each in document["comparisons"]]
    assert [each["uncorrected"] for each in tests] == pytest.approx([2 / 2**6, 2 / 2**7, 2 / 2**8])
    assert [each["p_value"] for each in tests] == pytest.approx([2 / 2**6, 2 / 2**6, 6 / 2**8])
    assert all(each["correction"] == "holm" for each in tests)


def test_tokens_that_an_agent_does_not_tell_are_unknown_and_not_0() -> None:
    document = compare(("one", "two"), run({"a": "r", "b": "u"}), run({"a": "r", "b": "r"}))
    assert document["tokens"] == {"a": None, "b": None, "difference": mean_of([])}


def test_runs_without_a_common_instance_have_no_numbers() -> None:
    document = compare(("A", "B"), run({"x": "r"}), run({"y": "r"}))
    assert document["total"] == 0
    assert document["difference"]["value"] is document["mcnemar"]["p_value"] is None


def test_groups_are_of_what_is_compared_with_a_difference_each() -> None:
    a = run({"x": "r", "y": "u", "z": "r", "open": "?"})
    b = run({"x": "r", "y": "r", "z": "u", "open": "r"})
    groups = compare(("A", "B"), a, b, {"repo": {"x": "one", "y": "one", "open": "two"}})["groups"]["repo"]
    assert list(groups) == ["", "one"], "nothing of the other can be compared"
    assert groups["one"] | {"difference": None} == {
        "total": 2,
        "both": 1,
        "only_a": 0,
        "only_b": 1,
        "neither": 0,
        "resolve_rate": {"a": 0.5, "b": 1.0},
        "difference": None,
    }
    assert groups["one"]["difference"]["value"] == 0.5
    assert groups["one"]["difference"]["low"] < 0.5 < groups["one"]["difference"]["high"]
    assert groups[""]["difference"]["value"] == -1.0
