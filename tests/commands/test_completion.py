"""evalkit completion, as it is called."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from evalkit.config import choices
from tests.support.cli import Evalkit
from tests.support.shells import COMPLETIONS, environment


@pytest.mark.parametrize(("shell", "name"), [("bash", "evalkit.bash"), ("zsh", "_evalkit"), ("fish", "evalkit.fish")])
def test_prints_the_script_of_a_shell(evalkit: Evalkit, shell: str, name: str) -> None:
    done = evalkit("completion", shell)
    assert (done.code, done.stderr) == (0, "")
    assert done.stdout == (COMPLETIONS / name).read_bytes()


@pytest.mark.parametrize(
    ("shell", "script"),
    [
        (
            ("bash", "--noprofile", "--norc", "-c"),
            'eval "$(evalkit completion bash)"; COMP_WORDS=(evalkit comple) COMP_CWORD=1; _evalkit; echo $COMPREPLY',
        ),
        (
            ("zsh", "-f", "-c"),
            'autoload -Uz compinit; compinit -u -D; eval "$(evalkit completion zsh)"; '
            "[[ $_comps[evalkit] == _evalkit ]] && whence _evalkit > /dev/null && echo completion",
        ),
        (
            ("fish", "--no-config", "-c"),
            "evalkit completion fish | source; complete -C 'evalkit comple' | string split -f 1 \\t",
        ),
    ],
    ids=("bash", "zsh", "fish"),
)
def test_a_shell_completes_once_it_has_read_it(tmp_path: Path, shell: tuple[str, ...], script: str) -> None:
    if shutil.which(shell[0]) is None:
        pytest.skip(f"there is no {shell[0]}")
    done = subprocess.run([*shell, script], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["completion"]


def test_another_shell_is_refused(evalkit: Evalkit) -> None:
    evalkit("completion", "tcsh").refused(2, "usage", "tcsh", "bash")
    evalkit("completion").refused(2, "usage", "SHELL")


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("run.stop_on", ("critic", "never")),
        ("images.push", ("true", "false")),
        ("workspace.network", ("none", "model", "allowlist", "bridge")),
        ("run.workers", ()),
    ],
)
def test_keys_with_few_values_have_choices(key: str, expected: tuple[str, ...]) -> None:
    assert choices(key) == expected
