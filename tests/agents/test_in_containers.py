"""Agents at work in containers of a real engine, started as a user starts them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from commandline import Evalkit
from engines import Engine
from evalkit.benchmarks.places import BUNDLED
from evalkit.testing.model_server import (
    Fault,
    ModelServer,
    Reply,
    Tokens,
    with_faults,
)
from modelcli import KEY
from solver import COSTS, TOTAL, solve_from

pytest_plugins = ("modelfixtures",)
pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("engine")]

PROVIDED = "sk-planted-for-agent"
_EVERYTHING = """
import json, os, urllib.request
url = os.environ["EVALKIT_MODEL_URL"]
def ask(stream, key):
    body = {"model": "x", "stream": stream, "messages": [{"role": "user", "content": os.environ["EVALKIT_STATEMENT"]}]}
    request = urllib.request.Request(url + "/chat/completions", json.dumps(body).encode())
    return urllib.request.urlopen(request, timeout=120).read().decode()
ask(True, "x")
text = json.loads(ask(False, "x"))["choices"][0]["message"]["content"]
open("answer.txt", "w").write(text)
print(dict(os.environ), flush=True)
"""


class Scripted:
    """evalkit infer in containers with a scripted model."""

    def __init__(self, evalkit: Evalkit, engine: Engine, server: ModelServer) -> None:
        self.evalkit = evalkit
        self.engine = engine
        self.server = server
        evalkit.variables["THE_KEY"] = KEY

    def arguments(self, *arguments: object, **settings: object) -> list[str]:
        given: dict[str, object] = {
            "model.name": "scripted",
            "model.base_url": self.server.base_url,
            "model.api_key_env": "THE_KEY",
            "workspace.image": self.engine.python,
            "workspace.memory": "256m",
        }
        given |= {name.replace("__", "."): value for name, value in settings.items()}
        flags = ["--workspace", "docker", "--run-dir", "runs/run"]
        flags += [word for key, value in given.items() for word in ("--set", f"{key}={value}")]
        return [*map(str, arguments), *flags]

    def infer(self, *arguments: object, **settings: object) -> dict[str, Any]:
        self.finished = self.evalkit("infer", *self.arguments(*arguments, **settings), timeout=900)
        document: dict[str, Any] = self.finished.document
        return document

    def rows(self) -> list[dict[str, Any]]:
        return self.evalkit.rows()


@pytest.fixture
def scripted(evalkit: Evalkit, engine: Engine, serve: Any) -> Any:
    return lambda script, **options: Scripted(evalkit, engine, serve(script, **options))


def in_python(program: str, *arguments: object) -> str:
    return json.dumps(["python3", "-c", program, *map(str, arguments)])


@pytest.mark.slow
def test_bundled_tasks_are_solved_by_thirty_workers_under_faults(scripted: Any) -> None:
    longer = Reply("this answer is cut off", tokens=Tokens(7, 0, 7, 0))
    faults = [Fault("rate_limit", 0.05), Fault("server_error"), Fault("garbage"), Fault("cut", reply=longer)]
    script = with_faults(solve_from(BUNDLED, delay=0.2), 0.1, faults, seed=1)
    run = scripted(script, cost_style="litellm")
    document = run.infer("--agent", "shell", "--workers", "30", model__retries=10)
    number = document["total"]
    assert number >= 20
    assert document["buckets"]["resolved"] == number, run.finished.stderr
    tokens, usage = run.server.delivered_tokens, document["usage"]
    assert tokens == Tokens(*(number * each for each in (TOTAL.input, TOTAL.cached, TOTAL.output, TOTAL.reasoning)))
    assert (usage["input_tokens"], usage["cached_tokens"]) == (tokens.input, tokens.cached)
    assert (usage["output_tokens"], usage["reasoning_tokens"]) == (tokens.output, tokens.reasoning)
    assert usage["cost_usd"] == pytest.approx(number * sum(COSTS))
    assert {call.outcome for call in run.server.calls} >= {"reply", "rate_limit", "server_error", "garbage", "cut"}
