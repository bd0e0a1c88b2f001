"""The bytes that infer writes, compared with those that it keeps."""

from __future__ import annotations

import sys
from pathlib import Path

from measure import Cost, Figure, Target, describe, in_folder, in_turn, infer, report


def main() -> int:
    shares = []

    def write(folder: Path) -> Cost:
        cost = infer(folder, 100, 0.2, 2, 30)
        kept = sum(path.stat().st_size for path in (folder / "runs").rglob("*") if path.is_file())
        shares.append(cost.written / kept)
        return cost

    costs = in_turn({"evalkit": in_folder(write)})
    targets = [Target("bytes written over bytes kept", Figure.of(shares), 1.1)]
    return report("disk", targets, workload="100 instances with 2 MB of trajectory each", costs=describe(costs))


if __name__ == "__main__":
    sys.exit(main())
