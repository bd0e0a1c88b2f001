"""Apptainer around each command of a workspace, in which an image's file system is the root.

Apptainer maps a user to itself only, so the namespace that it makes is below one in which the user has the number that
the image wants. That one also sets a limit: programs in the container cannot make user namespaces of their own.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from evalkit.domain.failures import Failed
from evalkit.errors import SandboxRequired
from evalkit.system import files, processes, scratch
from evalkit.workspaces.allow_list import Bind, system_places
from evalkit.workspaces.rootfs import namespaces, owner_filter, paths_inside, writable_root
from evalkit.workspaces.rootfs.bubblewrap import CAPABILITIES, memory_file
from evalkit.workspaces.rootfs.image_sandbox import LIMIT, Launch, SandboxedCommand
from evalkit.workspaces.rootfs.image_users import ImageUser
from evalkit.workspaces.rootfs.sandbox_search import NO_OVERLAY, find_strongest, require_folder
from evalkit.workspaces.rootfs.writable_root import Layering, WritableRoot, trial

PROGRAMS = ("apptainer", "singularity")
_BEGUN = b"begun"
_TRIAL_SECONDS = 30
_STRANGER = ImageUser(54321, 54321, "/")
_PROC = Path("/proc")
_MOUNT_POINTS = (PurePosixPath("/dev"), PurePosixPath("/proc"))
# So that what Apptainer mounts by itself neither hides files of the image, nor shows those of the kernel.
_SETTINGS = """\
config passwd = no
config group = no
config resolv_conf = no
mount proc = yes
mount sys = no
mount dev = minimal
mount home = no
mount tmp = no
mount hostfs = no
enable overlay = no
enable underlay = no
root default capabilities = no
"""
# The same, as far as there are options: an Apptainer with set-user-id programs takes no settings from users.
_NO_MOUNTS = ("--no-mount", "sys,home,tmp,hostfs,bind-paths,cwd")
_OWN_ACCOUNTS = "programs cannot change /etc/passwd, /etc/group and /etc/resolv.conf: this Apptainer takes no settings"
_NESTING = "programs can make user namespaces of their own"
_IN_MEMORY = "files in /dev and /dev/shm are in memory, and their size is not limited"
# What Apptainer sets by itself.
_UNWANTED = (
    *("LD_LIBRARY_PATH", "PS1", "PROMPT_COMMAND", "SHLVL", "LANG", "LC_CTYPE", "TERM", "USER_PATH", "OLDPWD"),
    *(
        f"{owner}_{name}"
        for owner in ("APPTAINER", "SINGULARITY")
        for name in ("ENVIRONMENT", "COMMAND", "APPNAME", "BIND", "CONTAINER", "NAME", "CONFIGDIR", "MESSAGELEVEL")
    ),
)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class ApptainerSandbox:
    """The program, what this machine lets it do, and what is weaker for that."""

    program: str
    takes_settings: bool
    limits_nesting: bool
    layering: Layering
    lacks: Sequence[str] = ()
    binds: Sequence[Bind] = ()
    """Files of this machine, which stand in for those of an image in a trial."""

    @property
    def mount_points(self) -> Sequence[PurePosixPath]:
        """Apptainer makes none in an image that can be written to."""
        return _MOUNT_POINTS

    @property
    def variable_prefix(self) -> str:
        return f"{Path(self.program).name.upper()}ENV_"

    def launch(self, command: SandboxedCommand, root: WritableRoot, files: ExitStack) -> Launch:
        status = files.enter_context(memory_file())
        script = files.enter_context(memory_file(_script(command).encode("utf-8", "surrogateescape")))
        return Launch(
            [*self._become(command.user, root.folder, status.fileno(), script.fileno()), *self._exec(command, root)],
            (status.fileno(), script.fileno()),
            lambda: os.pread(status.fileno(), len(_BEGUN), 0) == _BEGUN,
            lambda: os.pread(status.fileno(), len(namespaces.ENDED), namespaces.ENDED_AT) == namespaces.ENDED,
            {
                "PATH": os.environ.get("PATH", os.defpath),
                "HOME": str(root.folder),
                f"{Path(self.program).name.upper()}_CONFIGDIR": str(root.folder / "config"),
            },
        )

    def _become(self, user: ImageUser, folder: Path, status: int, script: int) -> Iterator[str]:
        accounts = folder / "accounts"
        if not user.is_root:  # Apptainer wants an account, and the machine may not have one of this number
            accounts = accounts.with_name(f"accounts-{user.number}-{user.group}")
            accounts.write_text(f"user:x:{user.number}:{user.group}::/:/bin/sh\n")
        yield from (sys.executable, "-I", "-S", namespaces.__file__, "become", str(user.number), str(user.group))
        yield "" if user.is_root else str(accounts)
        yield "1" if self.limits_nesting else ""
        yield owner_filter.program().hex() if user.is_root else ""
        yield from (str(status), str(script), "--")

    def _exec(self, command: SandboxedCommand, root: WritableRoot) -> Iterator[str]:
        yield from (self.program, "--silent")
        if self.takes_settings:
            settings = root.folder / "settings"
            settings.write_text(_SETTINGS)
            yield from ("--config", str(settings))
        yield from ("exec", "--userns", "--containall", "--no-home", "--writable", "--no-privs", *_NO_MOUNTS)
        if command.user.is_root:
            yield from ("--add-caps", ",".join(f"CAP_{name}" for name in CAPABILITIES))
        if command.network == "none":
            yield from ("--net", "--network", "none")
        for bind in (*self.binds, *kernel_settings()):
            yield from ("--bind", f"{bind.source}:{bind.inside}:ro")
        yield from (str(root.mounted), "/bin/sh", f"/proc/self/fd/{namespaces.SCRIPT}", *command.argv)

    def complains_of_image(self, complaint: str) -> bool:
        return "/bin/sh" in complaint

    async def blames_files(self, complaint: str, root: WritableRoot) -> bool:
        """Whether a command begins with the files as the image has them. Programs may have written the complaint."""
        folder = Path(tempfile.mkdtemp(dir=root.folder))
        files.keep_to_own_group(folder)
        async with writable_root.opened(root.image, folder, root.layering) as untouched:
            with ExitStack() as open_files, tempfile.TemporaryFile() as said:
                _make_mount_points(untouched.path)
                launch = self.launch(SandboxedCommand((":",), "/", ImageUser(), {}, "none"), untouched, open_files)
                await processes.run(
                    [*untouched.holder.enter(own_network=False), *launch.argv],
                    env={**launch.environment, scratch.TOKEN_VARIABLE: writable_root.token_of(root.folder)},
                    cwd=Path("/"),
                    stdout=said,
                    stderr=said,
                    pass_fds=launch.descriptors,
                )
                return launch.has_begun()


def _make_mount_points(root: Path) -> None:
    for each in _MOUNT_POINTS:
        paths_inside.make_folder(root, each)


def kernel_settings() -> list[Bind]:
    """What the kernel lets user 0 of the machine write to in /proc, whatever the capabilities: for when that is us."""
    if os.geteuid() != 0:
        return []
    return [Bind(path, path) for path in sorted(_PROC.iterdir()) if _can_be_written(path)]


def _can_be_written(path: Path) -> bool:
    with suppress(OSError):
        return not (path.name.isdigit() or path.is_symlink()) and (path.is_dir() or bool(path.stat().st_mode & 0o200))
    return False


def _script(command: SandboxedCommand) -> str:
    """What the container's shell reads from a descriptor. In a command line, all users would see the variables."""
    named = {name: shlex.quote(value) for name, value in command.variables.items() if _NAME.fullmatch(name)}
    lines = [f"unset {' '.join(_UNWANTED)}", *(f"export {name}={value}" for name, value in named.items())]
    if command.most_processes:
        lines.append(LIMIT.format(command.most_processes))
    lines += [
        f"cd {shlex.quote(command.folder)} 2>/dev/null || cd /",
        f"printf {_BEGUN.decode()} >&{namespaces.STATUS}",
        f"exec {namespaces.STATUS}>&- {namespaces.SCRIPT}<&-",
        'exec "$@"',
    ]
    return "\n".join(lines) + "\n"


_WAYS: Sequence[tuple[bool, bool, tuple[str, ...]]] = (
    (True, True, ()),
    (False, True, (_OWN_ACCOUNTS,)),
    (True, False, (_NESTING,)),
    (False, False, (_OWN_ACCOUNTS, _NESTING)),
)


def find_apptainer(temporary: Path, images: Path) -> ApptainerSandbox:
    """The strongest container that Apptainer makes here, with an overlay if the kernel mounts one over the images."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        raise SandboxRequired(
            "workspaces of kind apptainer run in Apptainer, and there is neither apptainer nor singularity",
            hint="load its module, or install it; --workspace rootfs needs only bubblewrap",
        )
    require_folder(images)
    return find_strongest(
        "apptainer",
        lambda layering, weaker: (
            ApptainerSandbox(program, takes_settings, limits_nesting, layering, (*lacks, _IN_MEMORY, *weaker))
            for takes_settings, limits_nesting, lacks in _WAYS
        ),
        lambda sandbox: _try(sandbox, temporary, images),
    )


def _try(sandbox: ApptainerSandbox, temporary: Path, images: Path) -> str | None:
    """The problem with a sandbox, if there is one, as root of an image and as another user."""
    with (
        tempfile.TemporaryDirectory(prefix="trial-", dir=images) as image,
        tempfile.TemporaryDirectory(prefix="trial-", dir=temporary) as folder,
    ):
        for each in (image, folder):
            files.keep_to_own_group(Path(each))
        binds = _stand_in(Path(image))
        try:
            with trial(Path(image), Path(folder), sandbox.layering) as root:
                _make_mount_points(root.path)
                found = replace(sandbox, binds=binds)
                return _try_out(found, root, ImageUser()) or _try_out(found, root, _STRANGER)
        except (Failed, OSError, subprocess.SubprocessError) as error:
            return f"{NO_OVERLAY if sandbox.layering == 'overlay' else 'no workspace'} can be had: {error}"
        finally:
            scratch.remove(Path(folder))
            Path(folder).mkdir(exist_ok=True)


def _stand_in(image: Path) -> list[Bind]:
    """Give an image the folders of this machine's programs and libraries."""
    binds = []
    for place in system_places():
        if place.inside.is_relative_to("/etc"):
            continue
        inside = image / place.inside.relative_to("/")
        if isinstance(place, Bind):
            inside.mkdir(parents=True)
            binds.append(place)
        else:
            inside.symlink_to(place.target)
    return binds


_KINDS = ("ipc", "mnt", "net", "pid", "user")
_TELL = f"cat /proc/self/status; for each in {' '.join(_KINDS)}; do readlink /proc/self/ns/$each; done"


def _try_out(sandbox: ApptainerSandbox, root: WritableRoot, user: ImageUser) -> str | None:
    """Start a container, and look whether it has the walls that were asked for."""
    with ExitStack() as open_files:
        command = SandboxedCommand(("/bin/sh", "-c", _TELL), "/", user, {"PATH": os.defpath}, "none")
        launch = sandbox.launch(command, root, open_files)
        ended = subprocess.run(
            [*root.holder.enter(own_network=False), *launch.argv],
            pass_fds=launch.descriptors,
            env=dict(launch.environment),
            capture_output=True,
            check=False,
            timeout=_TRIAL_SECONDS,
        )
        said, complaint = (each.decode("utf-8", "replace").strip() for each in (ended.stdout, ended.stderr))
        if ended.returncode or not launch.has_begun():
            return f"{sandbox.program} does not start: {complaint}"
        return missing_walls(said, user, [str(Path("/proc/self/ns", kind).readlink()) for kind in _KINDS])


def missing_walls(said: str, user: ImageUser, ours: Sequence[str]) -> str | None:
    """What a container lacks that says this of itself, beside the namespaces of this process."""
    facts: Mapping[str, str] = dict(line.split(":\t", 1) for line in said.splitlines() if ":\t" in line)
    shared = [kind for kind, own in zip(_KINDS, ours, strict=True) if own in said.splitlines()]
    if shared or not all(f"{kind}:[" in said for kind in _KINDS):
        return f"its containers share namespaces with the machine: {', '.join(shared) or 'not known which'}"
    if facts.get("NoNewPrivs") != "1" or facts.get("Uid", "").split()[:1] != [str(user.number)]:
        return "its containers can gain privileges, or run as another user than they should"
    most = len(CAPABILITIES) if user.is_root else 0
    if int(facts.get("CapBnd", "f" * 16), 16).bit_count() > most:
        return "its containers have capabilities that they should not have"
    return None
