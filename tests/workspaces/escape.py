"""Runs in a workspace and says, a line each, what it could do that it should not. Its argument is a file of places."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

COMMANDS = {
    "remount": "mount -o remount,bind,rw /",
    "umount": "umount -l /tmp",
    "mount": 'mkdir -p "${TMPDIR:-/tmp}/in" && mount -t tmpfs none "${TMPDIR:-/tmp}/in"',
    "disk": """for major in 8 252 253 254 259; do
        disk="${TMPDIR:-/tmp}/disk-$major"
        mknod "$disk" b $major 0 && [ "$(head -c 1 "$disk" | wc -c)" -eq 1 ] && exit 0
    done; exit 1""",
    "namespaces": "unshare -Urm true",
    "capabilities in namespaces": "unshare -Ur grep -q 'CapEff:.*[1-9a-f]' /proc/self/status",
    "chroot": "chroot / true",
    "clock": 'date -s "@$(date +%s)"',
    "root": '[ "$(id -u)" -eq 0 ]',
    "capabilities": "grep -q 'Cap[A-Z][a-z]*:.*[1-9a-f]' /proc/self/status",
    "kernel settings": ": >>/proc/sys/kernel/core_pattern",
    "kernel commands": ": >>/proc/sysrq-trigger",
    "kernel memory": '[ "$(head -c 1 /proc/kcore | wc -c)" -eq 1 ]',
    "control groups": "mkdir /sys/fs/cgroup/*/evalkit-test /sys/fs/cgroup/evalkit-test",
    "root folder": ": >/evalkit-test",
    "devices": ": >/dev/evalkit-test",
    "programs": ": >/usr/bin/evalkit-test",
    "other processes": "ls -d /proc/[0-9]* | grep -c . | grep -qv '^.$'",
}
SECONDS = 3


def main() -> None:
    places = {"files": [], "sockets": [], "addresses": [], "processes": [], **json.loads(Path(sys.argv[1]).read_text())}
    for name in places.get("commands", COMMANDS):
        if subprocess.run(["sh", "-c", COMMANDS[name]], capture_output=True, check=False).returncode == 0:
            print(f"could: {name}")
    for path in places["files"]:
        if read(path):
            print(f"read: {path}")
    for path in places["sockets"]:
        if connect(socket.AF_UNIX, path):
            print(f"reached: {path}")
    for host, port in places["addresses"]:
        if connect(socket.AF_INET6 if ":" in host else socket.AF_INET, (host, port)):
            print(f"reached: {host}")
    commands = [read(path).replace(b"\0", b" ").decode() for path in Path("/proc").glob("[0-9]*/cmdline")]
    for words in places["processes"]:
        if any(words in command for command in commands):
            print(f"saw: {words}")
    print("tried everything")


def read(path: "str | Path") -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def connect(family: int, address: "str | tuple[str, int]") -> bool:
    with socket.socket(family) as own:
        own.settimeout(SECONDS)
        try:
            own.connect(address)
        except OSError:
            return False
    return True


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)
