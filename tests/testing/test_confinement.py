from __future__ import annotations

import subprocess
import threading

from evalkit.testing.container_engine.confinement import wait_for_root
from tests.support.waiting import eventually


def test_a_first_process_that_has_ended_is_not_waited_for() -> None:
    """It stays a zombie where this process is its parent, by birth or by adoption."""
    process = subprocess.Popen(["true"], start_new_session=True)
    try:
        waiting = threading.Thread(target=wait_for_root, args=(process.pid,), daemon=True)
        waiting.start()
        assert eventually(lambda: not waiting.is_alive())
    finally:
        process.wait()
