"""evalkit completion"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

import evalkit
from evalkit import stdout
from evalkit.errors import EvalkitError

Shell = Literal["bash", "zsh", "fish"]
_FILES: dict[Shell, str] = {"bash": "evalkit.bash", "zsh": "_evalkit", "fish": "evalkit.fish"}


def completion(
    shell: Annotated[Shell, typer.Argument(metavar="SHELL", help="bash, zsh or fish", show_default=False)],
) -> int:
    """Print the script with which a shell completes commands, options, runs, instances and values of `--set`.

    Its standard output is the script rather than JSON.

    Examples:
      eval "$(evalkit completion bash)"    # in ~/.bashrc
      eval "$(evalkit completion zsh)"     # in ~/.zshrc, after compinit
      evalkit completion fish | source     # in ~/.config/fish/config.fish
    """
    stdout.emit_text([find_script(shell).read_text(encoding="utf-8")])
    return 0


def find_script(shell: Shell) -> Path:
    """The script is in the package when installed from a wheel, and in the checkout when the install is editable."""
    package = Path(evalkit.__file__).parent
    for folder in (package / "completions", package.parents[1] / "completions"):
        if (folder / _FILES[shell]).is_file():
            return folder / _FILES[shell]
    raise EvalkitError(
        f"this installation has no completion for {shell}", hint="reinstall evalkit from a wheel or a checkout"
    )
