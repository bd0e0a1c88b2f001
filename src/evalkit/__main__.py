"""Where the program begins."""

from __future__ import annotations

import os
import sys

from evalkit import descriptors

_COMPLETION = "_EVALKIT_COMPLETE"


def main() -> None:
    descriptors.complete()
    if _COMPLETION in os.environ:
        from evalkit import completion  # noqa: PLC0415  # somebody waits at the keyboard: nothing else is loaded

        completion.answer(os.environ[_COMPLETION], sys.argv[1:])
        return
    from evalkit import cli  # noqa: PLC0415  # and nothing is opened before the descriptors are complete

    cli.main()


if __name__ == "__main__":
    main()
