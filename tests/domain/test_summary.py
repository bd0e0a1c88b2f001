"""The document about the rows of runs."""

from __future__ import annotations

from typing import Any

from evalkit.domain.planning import Attempts
from evalkit.domain.results import Failure, Row
from evalkit.domain.summary import RunFacts, Tally

IDS = [f"repo__repo-{number}" for number in range(50)]


def error(instance_id: str, message: str, kind: str = "agent") -> Row:
    failure = Failure(kind=kind, message=message, stage="solve")
    return Row(instance_id=instance_id, attempt=1, outcome="error", verdict="ungraded", failure=failure)


def alike(rows: list[Row]) -> list[dict[str, Any]]:
    tally = Tally([RunFacts("run", IDS, Attempts(1, "never"))])
    tally.add(rows)
    found: list[dict[str, Any]] = tally.summary()["failures_alike"]
    return found


def test_failures_are_grouped_by_their_message_the_most_frequent_first() -> None:
    rows = [
        error(IDS[0], "no room", "disk_full"),
        *(error(name, "sh exited with status 3: boom") for name in IDS[1:41]),
    ]
    rows += [error(name, f"{name} has no branch", "setup") for name in IDS[41:44]]
    assert alike(rows) == [
        {
            "count": 40,
            "kind": "agent",
            "message": "sh exited with status 3: boom",
            "instances": 40,
            "examples": IDS[1:4],
        },
        {"count": 3, "kind": "setup", "message": "… has no branch", "instances": 3, "examples": IDS[41:44]},
        {"count": 1, "kind": "disk_full", "message": "no room", "instances": 1, "examples": IDS[:1]},
    ]


def test_only_what_stands_is_counted() -> None:
    result = Row(instance_id=IDS[0], attempt=1, outcome="submitted", verdict="resolved")
    assert alike([error(IDS[0], "first"), error(IDS[0], "second")])[0]["message"] == "second"
    assert alike([error(IDS[0], "first"), result]) == []
    assert alike([result, error(IDS[0], "later")]) == [], "an error replaces no result"


def test_of_many_messages_the_most_frequent_are_listed() -> None:
    rows = [error(name, "x" * (number + 1)) for number, name in enumerate(IDS)]
    assert len(alike(rows)) == 20
