"""The entry point of the program."""

from __future__ import annotations

import gc
import os
import signal
import sys
from typing import NoReturn

from evalkit.system import descriptors

_COMPLETION = "_EVALKIT_COMPLETE"
# Otherwise pydantic searches all installed packages for its plugins, a tenth of a short command's time.
_NO_PYDANTIC_PLUGINS = "PYDANTIC_DISABLE_PLUGINS"


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)  # until the command line listens
    descriptors.complete()
    if _COMPLETION in os.environ:
        from evalkit.cli import completion  # a person waits at the keyboard: load nothing else

        completion.answer(os.environ[_COMPLETION], sys.argv[1:])
        return
    os.environ.setdefault(_NO_PYDANTIC_PLUGINS, "__all__")
    gc.disable()  # until the command begins: imports leave no garbage, and the collector takes time
    from evalkit.cli import app  # after the missing descriptors, so that no file takes their place

    app.main()


def _end(number: int, _frame: object) -> NoReturn:
    os._exit(128 + number)


if __name__ == "__main__":
    main()
