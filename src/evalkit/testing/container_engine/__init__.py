"""A Docker engine for tests that needs neither Docker nor root: the real API on a socket, containers as folders.

    with FakeEngine() as engine:
        engine.add_image("busybox")
        engine.inject(Refusal(500, "no space left"), "exec_create", call=2)
        ...  # with DOCKER_HOST=engine.host
        assert engine.containers == []

It speaks what evalkit and the docker SDK need of version 1.41. Commands in containers are real processes: they see a
root folder of their own and no process of this machine, so that output, exit codes, signals and files are real. That
takes bubblewrap and util-linux, and no more than an ordinary user. What it does not have: other users than root,
limits of memory and processes, capabilities, networks other than none and this machine's own, terminals, builds.

`inject` lets a request go wrong, `on` lets a command have an outcome without running, `stop` and `start` are those of
the engine. `containers`, `execs`, `connections` and `under_way` say what is alive: whatever a test does, they tell
whether something was left behind. `requests` has all that was asked.
"""

from evalkit.testing.container_engine.engine import FakeEngine, Outcome, Request
from evalkit.testing.container_engine.faults import (
    ContainerEnds,
    ContainerVanishes,
    Cut,
    Death,
    ExecFails,
    Fault,
    Hang,
    Refusal,
    Reset,
    Slow,
)
from evalkit.testing.container_engine.images import FakeImage

__all__ = [
    "ContainerEnds",
    "ContainerVanishes",
    "Cut",
    "Death",
    "ExecFails",
    "FakeEngine",
    "FakeImage",
    "Fault",
    "Hang",
    "Outcome",
    "Refusal",
    "Request",
    "Reset",
    "Slow",
]
