"""Starts evalkit by forking a process that has imported it: each start is a real process without the import time.

The server has one thread and no state. A child gets arguments, environment, working directory and descriptors of its
own before evalkit's `main` begins, and ends like any Python program.
"""

from __future__ import annotations

import ctypes
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any, cast

import msgspec

_STATUS = struct.Struct("!i")


class Order(msgspec.Struct):
    arguments: list[str]
    folder: str
    environment: dict[str, str]
    powerless: bool = False


class Running:
    """A process with the interface of subprocess.Popen."""

    def __init__(self, connection: socket.socket, pid: int, stdout: IO[bytes] | None, stderr: IO[bytes] | None) -> None:
        self._connection = connection
        self.pid = pid
        self.stdout = stdout
        self.stderr = stderr
        self.returncode: int | None = None

    def poll(self) -> int | None:
        return self._receive(socket.MSG_DONTWAIT)

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self._connection.settimeout(timeout)
        status = self._receive(socket.MSG_WAITALL)
        assert status is not None, "the fork server is gone"
        return status

    def communicate(self, timeout: float | None = None) -> tuple[bytes, bytes]:
        until = None if timeout is None else time.monotonic() + timeout
        read: dict[IO[bytes], list[bytes]] = {pipe: [] for pipe in (self.stdout, self.stderr) if pipe}
        with selectors.DefaultSelector() as selector:
            for pipe in read:
                selector.register(pipe, selectors.EVENT_READ)
            while selector.get_map():
                if until is not None and time.monotonic() > until:
                    raise TimeoutError(f"no end within {timeout} s: {read}")
                for key, _ in selector.select(0.5):
                    pipe = cast("IO[bytes]", key.fileobj)
                    if block := os.read(pipe.fileno(), 1 << 16):
                        read[pipe].append(block)
                    else:
                        selector.unregister(pipe)
                        pipe.close()
        self.wait(timeout)
        out, err = (b"".join(read.get(pipe, ())) if pipe else b"" for pipe in (self.stdout, self.stderr))
        return out, err

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _receive(self, flags: int) -> int | None:
        if self.returncode is None:
            try:
                self.returncode = _STATUS.unpack(self._connection.recv(_STATUS.size, flags))[0]
            except BlockingIOError:
                return None
            self._connection.close()
        return self.returncode


class ForkServer:
    def __init__(self, folder: Path, importable: str) -> None:
        self.address = str(folder / "forkserver")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.address)
        self._listener.listen()
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("EVALKIT_", "PYTHON"))}
        self._process = subprocess.Popen(
            # The folder of this file stays off sys.path, since swebench.py in it would hide the package `swebench`.
            [sys.executable, "-P", __file__, str(self._listener.fileno())],
            pass_fds=[self._listener.fileno()],
            env=environment | {"PYTHONPATH": importable},
        )

    def start(self, order: Order, stdout: IO[bytes] | int, stderr: IO[bytes] | int) -> Running:
        """Start evalkit. A stream given as subprocess.PIPE can be read."""
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self.address)
        (own_out, out), (own_err, err) = map(_make_end, (stdout, stderr))
        socket.send_fds(connection, [b"0"], [out, err])
        for own, given in ((own_out, out), (own_err, err)):
            if own:
                os.close(given)
        connection.sendall(msgspec.json.encode(order) + b"\n")
        (pid,) = _STATUS.unpack(connection.recv(_STATUS.size, socket.MSG_WAITALL))
        return Running(connection, pid, own_out, own_err)

    def close(self) -> None:
        self._listener.close()
        self._process.kill()
        self._process.wait()


def _make_end(stream: IO[bytes] | int) -> tuple[IO[bytes] | None, int]:
    if stream == subprocess.PIPE:
        reading, writing = os.pipe()
        return os.fdopen(reading, "rb"), writing
    return None, stream if isinstance(stream, int) else stream.fileno()


def serve(listener: socket.socket) -> None:
    """Serve until the tests end. Returns in each child that becomes evalkit."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0 and _attend(connection, listener):
            return
        connection.close()


def _attend(connection: socket.socket, listener: socket.socket) -> bool:
    """Start one child and report its end; true in the child."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, descriptors, _, _ = socket.recv_fds(connection, 1, 2)
    with connection.makefile("rb") as lines:
        order = msgspec.json.decode(lines.readline(), type=Order)
    child = os.fork()
    if child == 0:
        connection.close()
        listener.close()
        _become(order, *descriptors)
        return True
    listener.close()
    for descriptor in descriptors:
        os.close(descriptor)
    connection.sendall(_STATUS.pack(child))
    connection.sendall(_STATUS.pack(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])))
    os._exit(0)


def _become(order: Order, stdout: int, stderr: int) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, descriptor in enumerate((nothing, stdout, stderr)):
        os.dup2(descriptor, number)
    os.closerange(3, 256)
    if order.powerless:
        _give_up_power_over_files()
    os.chdir(order.folder)
    os.environ.clear()
    os.environ.update(order.environment)
    sys.argv[1:] = order.arguments


def _give_up_power_over_files() -> None:
    """Drop the capabilities by which root ignores file modes.

    https://man7.org/linux/man-pages/man7/capabilities.7.html
    """
    libc = ctypes.CDLL(None)
    version_3, set_bounding = 0x20080522, 24
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        libc.prctl(set_bounding, capability, 0, 0, 0)
    kept = [0xFFFFFFFF & ~0b110, 0xFFFFFFFF]
    header = (ctypes.c_uint32 * 2)(version_3, 0)
    current = (ctypes.c_uint32 * 6)()
    libc.capget(header, current)
    wanted = (ctypes.c_uint32 * 6)(*(current[n] & kept[n // 3] for n in range(6)))
    assert libc.capset(header, wanted) == 0, "cannot give up capabilities"


def _import_evalkit() -> Any:
    import importlib

    importlib.import_module("anyio._backends._asyncio")
    cli = importlib.import_module("evalkit.cli.app")
    for module, _, _ in cli.COMMANDS.values():
        importlib.import_module(f"evalkit.commands.{module}")
    return importlib.import_module("evalkit.__main__").main


if __name__ == "__main__":
    main = _import_evalkit()
    serve(socket.socket(fileno=int(sys.argv[1])))
    main()
