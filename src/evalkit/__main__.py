"""Where the program begins."""

from __future__ import annotations

import gc
import os
import signal
import sys
from typing import NoReturn

from evalkit.system import descriptors

_COMPLETION = "_EVALKIT_COMPLETE"
# Else pydantic searches all that is installed for plugins of its own, which takes a tenth of a short command's time.
_NO_PYDANTIC_PLUGINS = "PYDANTIC_DISABLE_PLUGINS"


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)  # until the command line listens
    descriptors.complete()
    if _COMPLETION in os.environ:
        from evalkit.cli import completion  # somebody waits at the keyboard: nothing else is loaded

        completion.answer(os.environ[_COMPLETION], sys.argv[1:])
        return
    os.environ.setdefault(_NO_PYDANTIC_PLUGINS, "__all__")
    gc.disable()  # until the command begins: loading leaves no garbage, and looking for it takes time
    from evalkit.cli import app  # and nothing is opened before the descriptors are complete

    app.main()


def _end(number: int, _frame: object) -> NoReturn:
    os._exit(128 + number)


if __name__ == "__main__":
    main()
