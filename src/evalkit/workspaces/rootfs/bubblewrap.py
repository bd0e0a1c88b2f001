"""Bubblewrap around each command of a workspace, in which an image's file system is the root."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from evalkit.domain.failures import Failed
from evalkit.errors import SandboxRequired
from evalkit.system import files, scratch
from evalkit.workspaces.rootfs import owner_filter
from evalkit.workspaces.rootfs.image_sandbox import HOSTNAME, LIMIT, Launch, SandboxedCommand
from evalkit.workspaces.rootfs.image_users import ImageUser
from evalkit.workspaces.rootfs.sandbox_search import NO_OVERLAY, find_strongest, require_folder
from evalkit.workspaces.rootfs.writable_root import Layering, WritableRoot, trial
from evalkit.workspaces.sandbox import SETUP_TRIES, find_bubblewrap, has_begun

# Those of containers. In a user namespace in which there is one user, they reach the workspace's own files.
CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID")
_SHARED_MEMORY = 512 << 20
_TRIAL_SECONDS = 30
_ENTER = 'cd "$1" 2>/dev/null || cd /; shift; exec "$@"'


@dataclass(frozen=True, slots=True)
class BubblewrapSandbox:
    """The bwrap program, what this machine lets it do, and what is weaker for that."""

    program: str
    options: Sequence[str]
    limits_size: bool
    layering: Layering
    lacks: Sequence[str] = ()
    variable_prefix: str = ""
    mount_points: Sequence[PurePosixPath] = ()

    def launch(self, command: SandboxedCommand, root: WritableRoot, files: ExitStack) -> Launch:
        described = self.describe(
            root.mounted, command.user, command.variables, network=command.network in ("entered", "machine")
        )
        filtered = owner_filter.program() if command.user.is_root else b""
        status, told, calls = (files.enter_context(memory_file(content)) for content in (b"", described, filtered))
        return Launch(
            [
                *self.command(told.fileno(), status.fileno(), calls.fileno() if filtered else None),
                *inside(command.argv, command.folder, command.most_processes),
            ],
            (status.fileno(), told.fileno(), calls.fileno()),
            lambda: has_begun(status.fileno()),
            lambda: has_begun(status.fileno()),  # what bwrap reports is the end
        )

    def complains_of_image(self, complaint: str) -> bool:
        return "execvp" in complaint

    async def blames_files(self, complaint: str, root: WritableRoot) -> bool:
        return "execvp" in complaint

    def describe(self, mounted: Path, user: ImageUser, variables: Mapping[str, str], *, network: bool) -> bytes:
        """What bwrap reads from a descriptor: the variables would be seen in a command line."""
        words = [
            *("--unshare-all", "--unshare-user", *self.options, "--unsetenv", "LC_CTYPE"),  # set by Python
            *(("--share-net",) if network else ()),
            *("--uid", str(user.number), "--gid", str(user.group), "--hostname", HOSTNAME, "--cap-drop", "ALL"),
            *(word for name in (CAPABILITIES if user.is_root else ()) for word in ("--cap-add", f"CAP_{name}")),
            *("--bind", str(mounted), "/", "--dev", "/dev"),
            *(("--size", str(_SHARED_MEMORY)) if self.limits_size else ()),
            # Root could change the kernel's settings: for those, user 0 is asked for rather than a capability.
            *("--tmpfs", "/dev/shm", "--proc", "/proc", "--remount-ro", "/proc", "--remount-ro", "/dev"),  # noqa: S108
            *(word for pair in variables.items() for word in ("--setenv", *pair)),
        ]
        return b"".join(word.encode("utf-8", "surrogateescape") + b"\0" for word in words)

    def command(self, described: int, status: int, calls: int | None = None) -> list[str]:
        """The start of the command line, with descriptors: what it reads, what it reports to, a filter of calls."""
        filtered = ["--seccomp", str(calls)] if calls is not None else []
        given = ["--json-status-fd", str(status), *filtered, "--args", str(described), "--"]
        return [self.program, "--die-with-parent", *given]


def memory_file(content: bytes = b"") -> IO[bytes]:
    """In memory, since the disk may be full."""
    file = os.fdopen(os.memfd_create("sandbox"), "r+b")
    file.write(content)
    file.seek(0)
    return file


def inside(argv: Sequence[str], cwd: str, processes: int | None) -> list[str]:
    """A command as the sandbox starts it: a shell changes to the folder, if it is there, and knows status 127."""
    limit = LIMIT.format(processes) if processes else ""
    return ["/bin/sh", "-c", f"{limit}{_ENTER}", "sh", cwd, *argv]


_NESTING = "programs can make user namespaces of their own"
_OPTIONS: Sequence[tuple[Sequence[str], bool, tuple[str, ...]]] = (
    (("--disable-userns",), True, ()),
    ((), True, (_NESTING,)),
    ((), False, (f"{_NESTING}, and what is in /dev/shm is not limited",)),
)


def find_sandbox(temporary: Path, images: Path) -> BubblewrapSandbox:
    """The strongest sandbox that works here, with an overlay if the kernel mounts one over the folder of the images."""
    bubblewrap = find_bubblewrap()
    if bubblewrap is None:
        raise SandboxRequired(
            "workspaces of kind rootfs run in bubblewrap, and there is no bwrap that works",
            hint="install bubblewrap, on a machine that lets users make user namespaces",
        )
    require_folder(images)
    program = bubblewrap.program
    return find_strongest(
        "rootfs",
        lambda layering, weaker: (
            BubblewrapSandbox(program, options, limits_size, layering, (*lacks, *weaker))
            for options, limits_size, lacks in _OPTIONS
        ),
        lambda sandbox: _try(sandbox, temporary, images),
    )


def _try(sandbox: BubblewrapSandbox, temporary: Path, images: Path) -> str | None:
    """The problem with a sandbox, if there is one."""
    with (
        tempfile.TemporaryDirectory(prefix="trial-", dir=images) as image,
        tempfile.TemporaryDirectory(prefix="trial-", dir=temporary) as folder,
    ):
        for each in (image, folder):
            files.keep_to_own_group(Path(each))
        (Path(image) / "folder" / "inner").mkdir(parents=True)
        try:
            with trial(Path(image), Path(folder), sandbox.layering) as root:
                if sandbox.layering == "overlay" and not _hides(root.path):
                    return f"{NO_OVERLAY} hides what was removed: their file system has no attributes of users"
                return _try_out(sandbox, [*root.holder.enter(own_network=True)])
        except (Failed, OSError, subprocess.SubprocessError) as error:
            return f"{NO_OVERLAY if sandbox.layering == 'overlay' else 'no workspace'} can be had: {error}"
        finally:
            scratch.remove(Path(folder))
            Path(folder).mkdir(exist_ok=True)


def _hides(root: Path) -> bool:
    """Whether a folder that is made anew is empty."""
    try:
        (root / "folder" / "inner").rmdir()
        (root / "folder").rmdir()
        (root / "folder").mkdir()
        return not list((root / "folder").iterdir())
    except OSError:
        return False


def _try_out(sandbox: BubblewrapSandbox, entered: Sequence[str]) -> str | None:
    with tempfile.TemporaryFile() as described, tempfile.TemporaryFile() as status:
        # This machine's own files stand in for an image.
        described.write(sandbox.describe(Path("/"), ImageUser(), {}, network=True))
        described.seek(0)
        done = ""
        for _ in range(SETUP_TRIES):
            with suppress(subprocess.TimeoutExpired):
                described.seek(0)
                ended = subprocess.run(
                    [*entered, *sandbox.command(described.fileno(), status.fileno()), "/bin/sh", "-c", ":"],
                    pass_fds=(described.fileno(), status.fileno()),
                    env={},
                    capture_output=True,
                    check=False,
                    timeout=_TRIAL_SECONDS,
                )
                if ended.returncode == 0:
                    return None
                done = ended.stderr.decode("utf-8", "replace").strip()
            if "mount" not in done:
                break
        return f"bubblewrap does not start: {done}"
