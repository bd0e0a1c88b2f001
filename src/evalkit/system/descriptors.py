"""Makes sure that descriptors 0 to 2 are open as standard input, output and error."""

from __future__ import annotations

import os
import sys

_STDIN, _STDOUT, _STDERR = range(3)


def complete() -> None:
    """Open the standard streams that the caller closed; else the next file to be opened becomes one of them.

    Messages to a closed standard error are dropped. A document for a closed standard output is an error, so it gets a
    descriptor that is open for reading only.
    """
    for descriptor, flags in ((_STDIN, os.O_RDONLY), (_STDOUT, os.O_RDONLY), (_STDERR, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, flags)
            assert opened == descriptor, "the lowest descriptor that is free"
            os.set_inheritable(opened, True)
    if sys.stderr is None:
        sys.stderr = open(_STDERR, "w", closefd=False)  # noqa: SIM115  # stays open as long as the process
    if sys.stdout is None:
        sys.stdout = sys.stderr
