"""A `docker` command with an engine behind it that only remembers names, and that fails where a test says so."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.requirements import require_program

Act = str
"""Lines of shell that a call comes to, instead of what it is for."""

_PROGRAM = """\
#!/bin/sh
folder=%(folder)s
printf '%%s\\n' "$*" >>"$folder/calls"

hang() {  # with a process of its own, as plugins of Docker's command are
    : >"$folder/hanging"
    sleep 600
}

is_among_the_first() {  # of a number of calls
    left=$2
    while [ "$left" -gt 0 ]; do
        mkdir "$folder/act-$1-$left" 2>/dev/null && return 0
        left=$((left - 1))
    done
    return 1
}

add() {
    name=${1##*/}
    tag=latest
    case "$name" in *:*) tag=${name##*:} ;; esac
    row='{"Repository":"%%s","Tag":"%%s","Digest":"<none>","ID":"sha256:%%s"}\\n'
    printf "$row" "${1%%":$tag"}" "$tag" "$tag" >>"$folder/images"
}

remove() {
    grep -vF "\\"Repository\\":\\"${1%%:*}\\",\\"Tag\\":\\"${1##*:}\\"" "$folder/images" >"$folder/left"
    mv "$folder/left" "$folder/images"
}

build() {
    tag=
    while [ $# -gt 0 ]; do
        [ "$1" = --tag ] && tag=$2
        shift
    done
    echo "#1 0.1 built"
    [ -z "$tag" ] || add "$tag"
}

number=0
while read -r _; do number=$((number + 1)); done <"$folder/calls"
[ "$number" != "$(cat "$folder/hang-at")" ] || hang

%(acts)s
case "$1 $2" in
    "info "*) cat "$folder/info" ;;
    "version "*) echo 28.0.0 ;;
    "context show") echo default ;;
    "image ls") cat "$folder/images" ;;
    "image inspect") shift 4; for _ in "$@"; do echo amd64; done ;;
    "pull "*) for name in "$@"; do :; done; add "$name" ;;
    "buildx build" | "build "*) build "$@" ;;
    "push "*) echo "$2" >>"$folder/pushed" ;;
    "image rm") shift 2; for name in "$@"; do remove "$name"; done ;;
    "system df") echo '[]' ;;
    "image prune" | "builder prune") ;;
    *) echo "docker: '$1' is not a docker command." >&2; exit 1 ;;
esac
"""


def fail(text: str = "", status: int = 1) -> Act:
    return f"printf '%s\\n' {shlex.quote(text)} >&2; exit {status}"


def die(signal: str = "KILL") -> Act:
    return f"kill -{signal} $$"


def hang() -> Act:
    return "hang"


def say(*lines: str, status: int = 0) -> Act:
    """And end, without doing anything else."""
    return " ".join(["printf '%s\\n'", *map(shlex.quote, lines)]) + f"; exit {status}"


def wait_for(path: Path, then: Act = ":") -> Act:
    """Go on once there is such a file."""
    return f"until [ -e {shlex.quote(str(path))} ]; do sleep 0.02; done; {then}"


@dataclass
class FakeDocker:
    """A test puts `programs` in the place of PATH: with the command is all that it needs, and no other `docker`."""

    folder: Path
    acts: list[tuple[str, Act, int | None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.programs.mkdir(parents=True)
        for name in ("cat", "grep", "mkdir", "mv", "sleep"):
            (self.programs / name).symlink_to(require_program(name))
        (self.folder / "info").write_text(json.dumps({"Architecture": "x86_64", "ServerVersion": "28.0.0"}))
        self.reset()

    @property
    def programs(self) -> Path:
        return self.folder / "bin"

    def reset(self) -> None:
        """Neither images nor calls so far; what was told stays."""
        for name in ("images", "pushed", "calls"):
            (self.folder / name).write_text("")
        (self.folder / "hanging").unlink(missing_ok=True)
        self.hang_at(0)
        for used in self.folder.glob("act-*"):
            used.rmdir()
        self._write()

    def on(self, call: str, act: Act, times: int | None = None) -> None:
        """Do this for calls that start like that, with any words where it has a `*`; the first few, or all."""
        self.acts.append((call, act, times))
        self._write()

    def hang_at(self, number: int) -> None:
        """At the call with this number, whatever it is for."""
        (self.folder / "hang-at").write_text(str(number))

    @property
    def is_hanging(self) -> bool:
        return (self.folder / "hanging").exists()

    @property
    def calls(self) -> list[str]:
        return (self.folder / "calls").read_text().splitlines()

    def calls_of(self, start: str) -> list[str]:
        return [call for call in self.calls if call.startswith(start)]

    @property
    def images(self) -> set[str]:
        rows = map(json.loads, (self.folder / "images").read_text().splitlines())
        return {f"{row['Repository']}:{row['Tag']}" for row in rows}

    @property
    def pushed(self) -> list[str]:
        return (self.folder / "pushed").read_text().splitlines()

    def _write(self) -> None:
        acts = "\n".join(self._case(number, *told) for number, told in enumerate(self.acts))
        new = self.programs / "new"
        new.write_text(_PROGRAM % {"folder": shlex.quote(str(self.folder)), "acts": acts})
        new.chmod(0o755)
        new.replace(self.programs / "docker")

    @staticmethod
    def _case(number: int, call: str, act: Act, times: int | None) -> str:
        pattern = "*".join(shlex.quote(part) if part else "" for part in call.split("*"))
        body = act if times is None else f"if is_among_the_first {number} {times}; then {act}; fi"
        return f'case "$*" in {pattern}*) {body} ;; esac'
