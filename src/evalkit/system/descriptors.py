"""Makes sure that the first three file descriptors are what everybody takes them for."""

from __future__ import annotations

import os
import sys

_STDIN, _STDOUT, _STDERR = range(3)


def complete() -> None:
    """Open what the caller closed, lest the next file that is opened becomes our standard error.

    What is said on a closed standard error goes nowhere. A document for a closed standard output is an error, so
    what stands in for it cannot be written to.
    """
    for descriptor, flags in ((_STDIN, os.O_RDONLY), (_STDOUT, os.O_RDONLY), (_STDERR, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, flags)
            assert opened == descriptor, "the lowest descriptor that is free"
            os.set_inheritable(opened, True)
    if sys.stderr is None:
        sys.stderr = open(_STDERR, "w", closefd=False)  # noqa: SIM115  # for as long as the process lives
    if sys.stdout is None:
        sys.stdout = sys.stderr
