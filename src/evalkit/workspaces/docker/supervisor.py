"""The supervisor: the first process of a container, for work inside it that the engine has no call for.

A shell that reads requests from its input, which is a connection that we hold. When evalkit ends, however it ends, the
kernel closes that connection, the engine closes the shell's input, the shell ends, and the container with it: without
a heartbeat, a thread or a poll, and through a remote engine too. If the engine misses this, because it was restarted
with live restore (https://docs.docker.com/engine/daemon/live-restore/), the shell's own time limit ends the container.

It kills all processes by one system call, without a new process, so it works under a fork bomb and with a full process
table (https://man7.org/linux/man-pages/man2/kill.2.html, pid -1). It also reads the kernel's counts: of processes
killed for lack of memory and, at the end, of what all of them took. Its script comes by the same input, because an
agent's `pkill -f` matches arguments.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple, Protocol

import anyio

from evalkit.containers.connection import Unreachable
from evalkit.containers.output import Frames

COMMAND = ("/bin/sh",)
ROUNDS = 10
MOST = 256
_MOST_SAID = 1 << 16
_LINE = re.compile(r"([0-9]{1,18}) ([0-9]{1,18}) ([0-9]{1,18}) (.*)")
"""Of a reply: the request's number, both counts, and the rest."""
_NUMBER = re.compile(r"[0-9]{1,18}")

FUNCTIONS = """
# With groups of version 1, a rootless container has none of its own. It sees those of others, and the root of some,
# which is where this file is.
shared=
for file in /sys/fs/cgroup/*/release_agent; do [ -e "$file" ] && shared=yes; done
reply() {
  kills=
  for file in /sys/fs/cgroup/memory.events /sys/fs/cgroup/memory/memory.oom_control; do
    [ -z "$shared" ] && [ -r $file ] && while read -r key value; do [ "$key" = oom_kill ] && kills=$value; done <$file
  done
  refused=
  for file in /sys/fs/cgroup/pids.events /sys/fs/cgroup/pids/pids.events; do
    [ -z "$shared" ] && [ -r $file ] && while read -r key value; do [ "$key" = max ] && refused=$value; done <$file
  done
  echo "$1 ${kills:-0} ${refused:-0} $2"
}
measure() {
  groups=/sys/fs/cgroup peak= used= periods= stopped= written=
  # The root of version 2, which a container without a namespace of its own sees, counts the whole machine.
  [ -r $groups/cgroup.controllers ] && [ ! -e $groups/cgroup.events ] && groups=/nothing
  [ "$shared" ] && groups=/nothing
  for file in $groups/memory.peak $groups/memory/memory.max_usage_in_bytes; do
    [ -r $file ] && read -r peak <$file
  done
  for file in $groups/cpu.stat $groups/cpu/cpu.stat; do
    [ -r $file ] && while read -r key value; do
      case $key in
        usage_usec) used=$value ;;
        nr_periods) periods=$value ;;
        nr_throttled) stopped=$value ;;
      esac
    done <$file
  done
  file=$groups/cpuacct/cpuacct.usage
  [ -r $file ] && read -r value <$file && used=${value%???}  # nanoseconds
  file=$groups/io.stat
  [ -r $file ] && written=0 && while read -r line; do
    case $line in
      *wbytes=*)
        line=${line#*wbytes=}
        written=$((written + ${line%% *}))
        ;;
    esac
  done <$file
  reply "$1" "${peak:--} ${used:--} ${periods:--} ${stopped:--} ${written:--}"
}
end_session() {
  session=$1 rounds=ROUNDS
  kill -KILL -$session
  while [ $rounds -gt 0 ]; do
    rounds=$((rounds - 1)) found=
    set -- /proc/[0-9]*/stat
    [ $# -gt MOST ] && break
    for file; do
      read -r line <$file || continue
      set -- ${line##*) }
      if [ "$4" = $session ] && [ "$1" != Z ]; then
        file=${file#/proc/}
        kill -KILL ${file%/stat}
        found=yes
      fi
    done
    [ "$found" ] || return
  done
  end_all
}
"""
"""Of a shell that supervises: `end_all` is defined by whom they are for."""
_SCRIPT = (
    FUNCTIONS
    + """
limit() { { sleep LIFETIME && kill -KILL $$; } </dev/null >/dev/null 2>&1 & }
end_all() { while kill -KILL -1; do wait; done; limit; }
umask 022
mkdir -p FOLDERS
umask 000
mkdir -p FOR_ALL
umask 022
cd -P WORK
work=$PWD
cd /
limit
reply 0 "$work"
while read -r number word argument; do
  case $word in
    end_all) end_all ;;
    end_session) end_session "$argument" ;;
    measure) measure "$number"; continue ;;
  esac
  reply "$number"
done
exit
"""
)


class Numbers(NamedTuple):
    """What the kernel has counted for the container's control group; None is unknown.

    Version 1 of control groups does not count buffered writes:
    https://docs.kernel.org/admin-guide/cgroup-v1/blkio-controller.html
    """

    memory_peak: int | None = None
    cpu_microseconds: int | None = None
    periods: int | None = None
    stopped_periods: int | None = None
    written: int | None = None


class Talk(Protocol):
    """A connection to a process, whose outputs come in frames."""

    async def receive(self) -> bytes:
        """The next frames; empty at the end, or when the connection breaks."""
        ...

    async def send(self, data: bytes) -> None:
        """Raises Unreachable where the connection is closed."""
        ...

    async def aclose(self) -> None: ...


def is_alone(first: int, parents: Mapping[int, int]) -> bool:
    """Whether all processes of a container, each with its parent, are its first one, the supervisor and its children.

    The first is the parent of the supervisor and of orphans; the parents of other commands are outside.
    """
    outside = [pid for pid, parent in parents.items() if parent not in parents]
    return outside == [first] and sum(parent == first for parent in parents.values()) == 1


class SupervisorGone(Exception):
    """The supervisor does not answer: its container has ended or is ending."""


@dataclass(slots=True)
class Supervisor:
    """Our end of the conversation with the supervisor.

    Root inside can write to its output too, by /proc/PID/fd: lines that are no reply are passed over, and one that says
    too much before its reply counts as gone.
    """

    _conversation: Talk
    _frames: Frames = field(default_factory=Frames)
    _numbers: count[int] = field(default_factory=lambda: count(1))
    _asking: anyio.Lock = field(default_factory=anyio.Lock)

    async def begin(self, *, folders: Sequence[str], for_all: Sequence[str], work: str, lifetime: float) -> str:
        """Start it, and have it make these folders, some for all users. Returns the real path of the work folder."""
        values = {
            "ROUNDS": str(ROUNDS),
            "MOST": str(MOST),
            "LIFETIME": str(round(lifetime)),
            "FOLDERS": shlex.join(folders),
            "FOR_ALL": shlex.join(for_all),
            "WORK": shlex.quote(work),
        }
        return await self.introduce(re.sub("|".join(values), lambda name: values[name[0]], _SCRIPT))

    async def introduce(self, script: str) -> str:
        """Hand it a script. Returns the rest of the line that it greets with."""
        await self._send(script)
        async with aclosing(self._replies()) as replies:
            async for _, _, _, greeting in replies:
                return greeting
        raise SupervisorGone

    async def end_all(self) -> None:
        """Kill everything else in the container. Returns once it is gone."""
        await self.ask("end_all")

    async def end_session(self, leader: int) -> None:
        """Kill a process and its session; if that forks faster than it dies, kill everything."""
        await self.ask(f"end_session {leader}")

    async def count(self) -> tuple[int, int]:
        """The number of processes that the kernel has killed for lack of memory, and of forks that it refused."""
        kills, refused, _ = await self.ask("count")
        return kills, refused

    async def measure(self) -> tuple[int, Numbers]:
        """The number of processes killed for lack of memory, and what else the kernel has counted."""
        kills, _, rest = await self.ask("measure")
        words = rest.split()
        numbers = (int(word) if _NUMBER.fullmatch(word) else None for word in words[: len(Numbers._fields)])
        return kills, Numbers(*numbers)

    async def aclose(self) -> None:
        await self._conversation.aclose()

    async def ask(self, request: str) -> tuple[int, int, str]:
        """The answer to a request: both counts, and the rest of the line."""
        async with self._asking:
            number = next(self._numbers)
            await self._send(f"{number} {request}\n")
            async with aclosing(self._replies()) as replies:
                async for answered, kills, refused, rest in replies:
                    if answered == number:  # others answer requests that timed out
                        return kills, refused, rest
        raise SupervisorGone

    async def _send(self, text: str) -> None:
        try:
            await self._conversation.send(text.encode())
        except Unreachable as error:
            raise SupervisorGone from error

    async def _replies(self) -> AsyncGenerator[tuple[int, int, int, str], None]:
        """What it says, until it ends or has said too much."""
        said, begun = 0, b""
        while said < _MOST_SAID and (data := await self._conversation.receive()):
            said += len(data)
            *lines, begun = (begun + b"".join(bytes(payload) for _, payload in self._frames.feed(data))).split(b"\n")
            for line in lines:
                if (reply := _LINE.fullmatch(line.decode("utf-8", "surrogateescape"))) is not None:
                    yield int(reply[1]), int(reply[2]), int(reply[3]), reply[4]
