"""aggregate over 1,000,000 rows, compared with jq and with a loop that only parses them, by the fastest parser."""

from __future__ import annotations

import itertools
import json
import random
import shutil
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from measure import EVALKIT, Cost, Figure, Target, describe, in_turn, infer, ratios, report, run

ROWS = 1_000_000
INSTANCES, ATTEMPTS = 10_000, 5
QUESTION = "reduce inputs as $row ({}; .[$row.verdict] += 1)"

_PARSERS = {
    "msgspec": "import msgspec; parse = msgspec.json.Decoder().decode",
    "orjson": "from orjson import loads as parse",
}
_FIELDS = "from evalkit.domain.results import Row; import msgspec; parse = msgspec.json.Decoder(Row).decode"
_LOOP = """
import sys
with open(sys.argv[1], "rb") as file:
    for line in file:
        parse(line)
"""


def make_run(folder: Path, rows: int) -> Path:
    """Make a run of evalkit with its row repeated for many instances, attempts and retries."""
    infer(folder, 1, 0, 0, 1)
    directory = folder / "runs" / "run"
    manifest = json.loads((directory / "run.json").read_text())
    ids = [f"owner__project-{number:05}" for number in range(INSTANCES)]
    manifest["instance_ids"] = ids
    manifest["config"]["run"] |= {"attempts": ATTEMPTS, "stop_on": "never"}
    (directory / "run.json").write_text(json.dumps(manifest))
    row = json.loads((directory / "results.jsonl").read_text())
    chance = random.Random(5)
    each = itertools.cycle(itertools.product(range(1, ATTEMPTS + 1), ids))
    with (directory / "results.jsonl").open("w") as file:
        for attempt, name in itertools.islice(each, rows):
            resolved = chance.random() < 0.5
            row |= {
                "instance_id": name,
                "attempt": attempt,
                "verdict": "resolved" if resolved else "unresolved",
                "score": float(resolved),
                "seconds": round(chance.lognormvariate(6, 1), 3),
                "artifacts": f"instances/{name}/attempt-{attempt}",
                "patch": {"sha256": f"{chance.getrandbits(256):064x}", "bytes": 1234, "path": "patch.diff"},
            }
            row["usage"] |= {
                "llm_calls": 40,
                "input_tokens": chance.randrange(10**6),
                "cost_usd": 0.25,
                "known_cost_usd": 0.25,
            }
            file.write(json.dumps(row, separators=(",", ":")) + "\n")
    return directory


def loop(setup: str, directory: Path) -> Cost:
    return run([sys.executable, "-c", setup + _LOOP, str(directory / "results.jsonl")])


def aggregate(directory: Path) -> Cost:
    cost = run([*EVALKIT, "aggregate", str(directory)])
    assert json.loads(cost.output)["total"] == INSTANCES
    return cost


def fastest(directory: Path) -> str:
    setups = [setup for name, setup in _PARSERS.items() if name != "orjson" or find_spec("orjson")]

    def take(setup: str) -> float:
        began = time.monotonic()
        loop(setup, directory)
        return time.monotonic() - began

    return min(setups, key=take)


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="evalkit-bench-") as scratch:
        many, few = Path(scratch, "many"), Path(scratch, "few")
        many.mkdir()
        few.mkdir()
        large, small = make_run(many, ROWS), make_run(few, ROWS // 10)
        parser = fastest(small)
        name = next(each for each, setup in _PARSERS.items() if setup == parser)
        contenders = {
            "evalkit": lambda: aggregate(large),
            f"only parsing: {name}": lambda: loop(parser, large),
            "only parsing the fields that aggregate reads: msgspec": lambda: loop(_FIELDS, large),
            "evalkit, 100,000 rows": lambda: aggregate(small),
        }
        if jq := shutil.which("jq"):
            contenders["jq"] = lambda: run([jq, "-n", QUESTION, str(large / "results.jsonl")])
        costs = in_turn(contenders)
    ours, parsing = costs["evalkit"], costs[f"only parsing: {name}"]
    growth = [a.megabytes - b.megabytes for a, b in zip(ours, costs["evalkit, 100,000 rows"], strict=True)]
    targets = [
        Target("speed over that of only parsing", ratios(parsing, ours), 0.7, at_least=True),
        Target("MB that 1,000,000 rows take beyond 100,000", Figure.of(growth), 3),
    ]
    if "jq" in costs:
        targets.append(Target("speed over jq", ratios(costs["jq"], ours), 5, at_least=True))
    return report("aggregate", targets, workload=f"{ROWS:,} rows of {INSTANCES:,} instances", costs=describe(costs))


if __name__ == "__main__":
    sys.exit(main())
