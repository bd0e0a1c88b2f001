"""Real shells at a real terminal, for tests of completion."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import shlex
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

COMPLETIONS = Path(__file__).parents[2] / "completions"
_SECONDS = 60.0

# Both shells are set up to insert all completions into the line on C-x C-a.
_BASH = f"""
source {shlex.quote(str(COMPLETIONS))}/evalkit.bash
bind '"\\C-x\\C-a": insert-completions'
bind 'set enable-bracketed-paste off'
"""
_ZSH = f"""
fpath=({shlex.quote(str(COMPLETIONS))} $fpath)
autoload -Uz compinit && compinit -u -D
bindkey -e
unset zle_bracketed_paste
zle -C all-matches complete-word _generic
bindkey '^X^A' all-matches
zstyle ':completion:all-matches::::' completer _all_matches _complete
zstyle ':completion:all-matches:*' old-matches no
zstyle ':completion:all-matches:*' insert true
"""
_COMMANDS = {"bash": ["bash", "--noprofile", "--norc", "-i"], "zsh": ["zsh", "-f", "-i"]}


def environment() -> dict[str, str]:
    """The environment of a person with evalkit on the PATH."""
    own = Path(sys.executable).parent
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("EVALKIT_")},
        "PATH": f"{own}:{os.environ['PATH']}",
        "TERM": "xterm",
        "LANG": "C.UTF-8",
        "COLUMNS": "",
    }


def ask_fish(line: str, folder: Path) -> list[str]:
    script = f"source {shlex.quote(str(COMPLETIONS))}/evalkit.fish; complete -C {shlex.quote(line)}"
    done = subprocess.run(
        ["fish", "--no-config", "-c", script],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return [offered.partition("\t")[0] for offered in done.stdout.splitlines()]


class Session:
    """A shell at the other end of a terminal."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._count = 0

    def offers(self, line: str) -> list[str]:
        """All completions of the last word, inserted into the line in its place."""
        *given, typed = re.split(r"(?<!\\) ", line)
        self._count += 1
        self._send(f"{line}\x18\x01\x01printf '<%s>' \x05; echo; echo done-$(({self._count}+0))\n")
        output = self._until(f"done-{self._count}\r\n").rstrip()
        words = re.findall(r"<([^>]*)>", output.rpartition("\n")[2])
        offered = words[len(given) :]
        return [] if offered == [typed] else offered

    def run(self, commands: str) -> None:
        self._count += 1
        self._send(f"{commands.strip()}\necho done-$(({self._count}+0))\n")
        self._until(f"done-{self._count}\r\n")

    def _send(self, text: str) -> None:
        os.write(self._descriptor, text.encode())

    def _until(self, mark: str) -> str:
        seen = b""
        deadline = time.monotonic() + _SECONDS
        while mark.encode() not in seen:
            ready, _, _ = select.select([self._descriptor], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"no {mark!r} in {seen.decode()!r}"
            seen += os.read(self._descriptor, 65536)
        return seen.partition(mark.encode())[0].decode()


@contextmanager
def session(shell: str, folder: Path) -> Iterator[Session]:
    pid, descriptor = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execvpe(_COMMANDS[shell][0], _COMMANDS[shell], environment())
    try:
        fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 2000, 0, 0))
        opened = Session(descriptor)
        opened.run({"bash": _BASH, "zsh": _ZSH}[shell])
        yield opened
    finally:
        os.close(descriptor)
        with suppress(ProcessLookupError):
            os.kill(pid, 9)
        os.waitpid(pid, 0)
