"""How build workers are started: as new processes that know nothing of this one.

This module is imported by them too, so it imports next to nothing.
"""

from __future__ import annotations

import sys
import threading
import types
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.process import BaseProcess
from typing import Any

_lock = threading.Lock()


class WorkerProcess(SpawnProcess):
    """Does not import this process's main module, which is the whole command line."""

    @staticmethod
    def _Popen(process_obj: BaseProcess) -> Any:  # noqa: N802  # multiprocessing's name
        with _lock:
            main = sys.modules["__main__"]
            sys.modules["__main__"] = types.ModuleType("__main__")
            try:
                return SpawnProcess._Popen(process_obj)
            finally:
                sys.modules["__main__"] = main


class WorkerContext(SpawnContext):
    Process = WorkerProcess
