#!/usr/bin/env python3
"""Records the example that we hand out: `python3 tools/record_fixture.py FILE`."""

import os
import sys
from datetime import datetime, timezone

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from relay import Bye, Data, Hello, encode  # noqa: E402 (only found from here on)

EXAMPLE = [
    Hello("buoy-7", 5),
    Data(
        datetime(1969, 12, 31, 23, 59, 58, 500000, timezone.utc),
        "K\u00f6ln",
        (("\u03b8 / \u00b0C", 21.5), ("p", -0.25)),
    ),
    Data(datetime(2024, 5, 1, 12, 30, 15, 250000, timezone.utc), "", ()),
    Bye("\u5929\u6c17", True),
]


def main():
    with open(sys.argv[1], "wb") as file:
        for message in EXAMPLE:
            file.write(encode(message))


if __name__ == "__main__":
    main()
