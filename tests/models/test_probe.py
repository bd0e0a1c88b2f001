from __future__ import annotations

from typing import Any

import anyio
import pytest

from evalkit.config import Config
from evalkit.models.probe import Finding, probe
from evalkit.testing.model_server import Fault, ModelServer, Reply, Script, Tokens, ToolCall, in_turn


def look(script: Script, **model: Any) -> tuple[Finding, ModelServer]:
    with ModelServer(script) as server:
        config = Config.model_validate({"model": {"name": "m", "base_url": server.base_url, **model}})
        return anyio.run(probe, config), server


def test_a_model_that_works() -> None:
    reply = Reply(calls=[ToolCall("ready", {})], tokens=Tokens(20, 0, 3, 0))
    found, server = look(in_turn(reply), prices={"input": 1, "output": 1})
    assert found.failure is None
    assert (found.calls_tools, found.tells_usage, found.knows_cost) == (True, True, True)
    assert len(server.calls) == 1


def test_a_model_that_only_talks() -> None:
    found, _ = look(in_turn(Reply("ready!", usage=False)))
    assert (found.calls_tools, found.tells_usage, found.knows_cost) == (False, False, False)


@pytest.mark.parametrize(
    ("fault", "kind"), [(Fault("unauthorized"), "model_auth"), (Fault("server_error"), "model_unavailable")]
)
def test_a_model_that_does_not_answer(fault: Fault, kind: str) -> None:
    found, server = look(in_turn(fault))
    assert found.failure == kind
    assert found.message
    assert len(server.calls) == 1
