"""Errors of endpoints are understood, whatever they hold."""

from __future__ import annotations

import json

import pytest

from evalkit.models.call_failures import judge_problem, judge_status, read_retry_after


@pytest.mark.parametrize("body", [b"[" * 5000, b"[1]", b"3", b'{"error": {"code": 3}}', b"\xff"])
def test_an_answer_of_any_kind_is_an_error_of_its_status(body: bytes) -> None:
    assert judge_status(400, {}, body).kind == "model_request"
    assert judge_status(500, {}, body).kind == "model_unavailable"


@pytest.mark.parametrize("code", ["9" * 5000, "²", 400.5, [400], {"400": 1}])
def test_an_event_of_any_kind_is_a_failure_that_may_pass(code: object) -> None:
    failure = judge_problem({"code": code, "message": "no"})
    assert (failure.kind, failure.again) == ("model_unavailable", True)


def test_an_event_with_a_status_is_judged_by_it() -> None:
    assert judge_problem(json.loads('{"code": "400", "message": "no"}')).kind == "model_request"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3.0),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after": "-1"}, 0.0),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after-ms": "1e999"}, None),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_how_long_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    assert read_retry_after(headers) == seconds
