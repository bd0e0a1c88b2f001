"""Finds the failing tests in the reports of graders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from evalkit.domain.json_values import mapping_of, mappings_of, text_of, texts_of

_PASSED = ("passed", "xpassed")


def find_failing(report: Any, instance_id: str) -> dict[str, list[str]]:
    """The names of failed tests, grouped as in the report; empty if it names none."""
    found = mapping_of(report)
    own = mapping_of(found.get(instance_id)) or found
    return {group: names for group, names in _groups(own) if names}


def _groups(report: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    for kind, outcomes in mapping_of(report.get("tests_status")).items():
        if kind in ("FAIL_TO_PASS", "PASS_TO_PASS"):  # others do not count
            yield kind, texts_of(mapping_of(outcomes).get("failure"))
    tests = mapping_of(report.get("tests"))
    if "pred" in tests:
        after = mapping_of(mapping_of(tests["pred"]).get("after"))
        yield "with the reference repair", [name for name, outcome in after.items() if outcome == "FAILED"]
    else:
        yield "tests", [name for name, outcome in tests.items() if outcome not in _PASSED]


def find_failing_in_ctrf(report: Any) -> list[str]:
    """The failed tests of a report in the Common Test Report Format: https://ctrf.io."""
    tests = mappings_of(mapping_of(mapping_of(report).get("results")).get("tests"))
    return [text_of(test.get("name")) for test in tests if text_of(test.get("status")).lower() == "failed"]


def find_refusal(report: Any, instance_id: str) -> str | None:
    """Why the patch did not apply, if it did not."""
    found = mapping_of(report)
    own = mapping_of(found.get(instance_id)) or found
    if refused := own.get("patch_refused"):
        return text_of(refused)
    return "the patch does not apply" if own.get("patch_successfully_applied") is False else None
