from __future__ import annotations

from typing import Any

import pytest

from evalkit.domain.failing_tests import find_failing, find_failing_in_ctrf, find_refusal

SWEBENCH = {
    "one": {
        "patch_successfully_applied": True,
        "tests_status": {
            "FAIL_TO_PASS": {"success": ["a"], "failure": ["b"]},
            "PASS_TO_PASS": {"success": ["c"], "failure": []},
            "FAIL_TO_FAIL": {"success": [], "failure": ["d"]},
        },
    }
}
SWTBENCH = {"one": {"tests": {"pred": {"before": {"a": "FAILED"}, "after": {"a": "PASSED", "b": "FAILED"}}}}}
COMMIT0 = {"tests": {"a": "passed", "b": "xpassed", "c": "xfailed", "d": "missing"}}


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        (SWEBENCH, {"FAIL_TO_PASS": ["b"]}),
        (SWTBENCH, {"with the reference repair": ["b"]}),
        (COMMIT0, {"tests": ["c", "d"]}),
        ({"reward": 0.0, "rewards": {"reward": 0.0}}, {}),
        (None, {}),
        ([], {}),
        ("text", {}),
        ({"tests": 3}, {}),
        ({"tests_status": {"FAIL_TO_PASS": "all"}}, {}),
    ],
)
def test_tests_that_failed_are_named_in_their_groups(report: Any, expected: dict[str, list[str]]) -> None:
    assert find_failing(report, "one") == expected


def test_tests_of_a_common_report() -> None:
    tests = [{"name": "a", "status": "passed"}, {"name": "b", "status": "failed"}, {"name": "c", "status": "skipped"}]
    assert find_failing_in_ctrf({"results": {"tests": tests}}) == ["b"]
    assert find_failing_in_ctrf({"results": None}) == []


def test_a_patch_that_does_not_apply() -> None:
    assert find_refusal({"patch_refused": "corrupt patch at line 3"}, "one") == "corrupt patch at line 3"
    assert find_refusal({"one": {"patch_successfully_applied": False}}, "one") == "the patch does not apply"
    assert find_refusal(SWEBENCH, "one") is None
