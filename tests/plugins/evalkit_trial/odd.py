"""Parts that fail, in the ways that parts of other packages do, and instances with odd ids."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from evalkit.config import Config
from evalkit.domain.protocols import Benchmark
from evalkit.domain.records import Instance, Result
from evalkit.testing import FakeBenchmark

ODD_NAMES = Path(__file__).with_name("odd_names.json")


def exit_when_created(_config: Config, _benchmark: Benchmark) -> Any:
    sys.exit("no licence")


def fail_when_created(*_arguments: object) -> Any:
    raise ValueError("no licence")


def raise_for_one(result: Result) -> bool:
    if result.instance_id == "one":
        raise ValueError("this one is beyond me")
    return True


def create_twins(_config: Config) -> FakeBenchmark:
    return FakeBenchmark([Instance(id="twin", statement="one"), Instance(id="twin", statement="two")])


def create_nothing(_config: Config) -> FakeBenchmark:
    return FakeBenchmark(0)


def create_odd_names(_config: Config) -> FakeBenchmark:
    names = json.loads(ODD_NAMES.read_text())
    return FakeBenchmark([Instance(id=name, statement=name, fields={"name": name}) for name in names])


class FailingBenchmark(FakeBenchmark):
    def load(self) -> Iterable[Instance]:
        raise RuntimeError("the table has no column instance_id")


def create_failing(_config: Config) -> FailingBenchmark:
    return FailingBenchmark()


class SlowBenchmark(FakeBenchmark):
    def load(self) -> Iterable[Instance]:
        print("loading", flush=True)
        time.sleep(300)
        return super().load()


def create_slow(_config: Config) -> SlowBenchmark:
    return SlowBenchmark()
