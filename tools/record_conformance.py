"""Run the cases of tests/conformance with Harbor, and write what it says to recorded.json.

    python tools/record_conformance.py HARBOR_PYTHON [CASE...]

The engine is the one of `.ci/services env`, and HARBOR_PYTHON the Python of an environment with Harbor in it. With
cases, the others keep what was recorded.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.conformance.cases import load_cases
from tests.conformance.ground import open_ground
from tests.conformance.recording import RECORDED, read_records, run_harbor, write_records
from tests.support.engine import find_engine


def main(python: str, *names: str) -> None:
    engine, cases = find_engine(), load_cases()
    wanted = [cases[name] for name in names] or list(cases.values())
    records = read_records() if RECORDED.exists() else {}
    try:
        with open_ground(engine) as ground, tempfile.TemporaryDirectory() as folder:
            for case, agent, record in run_harbor(Path(python), engine, ground, wanted, Path(folder)):
                print(f"{case} {agent}: {record}", file=sys.stderr)
                records.setdefault(case, {})[agent] = record
    finally:
        write_records(
            {
                name: {agent: records[name][agent] for agent in case.agents if agent in records.get(name, {})}
                for name, case in cases.items()
                if name in records
            }
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
