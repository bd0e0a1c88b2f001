"""The texts of --help: one screen that teaches, and the help of each command from its docstring."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator

from evalkit.console.formatting import unmarked

EXIT_CODES = "Exit codes: 0 done, 1 not all done, 2 wrong usage, 3 environment, 130 stopped."
_ABOUT = "Evaluate coding agents on containerised benchmarks, and never lose a result."
_FIRST_STEPS = """\
A first run needs no config, no Docker and no network. More: evalkit COMMAND -h
  [bold]evalkit infer[/bold]                     bundled tasks, solved by the agent `gold`
  [bold]evalkit aggregate --format table[/bold]  the numbers of the newest run
"""
_SOURCES = """\
Options are also keys of evalkit.toml, and variables like EVALKIT_RUN_WORKERS.
JSON goes to standard output, all else to standard error.
"""

Summary = tuple[str, str, str]
"""The name of a command, its panel, and a line of help."""


def print_screen(commands: Iterable[Summary]) -> None:
    """Print the screen of `evalkit --help`, which fits 40 lines of 80 columns."""
    from rich.console import Console  # slow to import, and needed here only
    from rich.table import Table

    console = Console(highlight=False)
    console.print(r"Usage: [bold]evalkit[/bold] \[-h] \[--version] COMMAND \[OPTIONS]")
    console.print(_ABOUT, style="bold", end="\n\n")
    table = Table.grid(padding=(0, 2))
    for panel, name, summary in _rows(commands):
        table.add_row(f"[dim]{panel}[/dim]", f"[cyan]{name}[/cyan]", summary)
    console.print(table)
    console.print(f"\n{_FIRST_STEPS}")
    console.print(_SOURCES, end="")
    console.print(EXIT_CODES)


def _rows(commands: Iterable[Summary]) -> Iterator[Summary]:
    shown = ""
    for name, panel, summary in commands:
        yield "" if panel == shown else panel, name, summary
        shown = panel


def mark_up(docstring: str) -> str:
    """The help of a command. Indented lines are examples and stay as they are, in bold up to their comment."""
    paragraphs = inspect.cleandoc(docstring).split("\n\n")
    return "\n\n".join(map(_mark_up_paragraph, paragraphs))


def _mark_up_paragraph(paragraph: str) -> str:
    lines = paragraph.splitlines()
    if not any(line.startswith("  ") for line in lines):
        return unmarked(" ".join(lines))
    return "\n".join(_mark_up_example(line) if line.startswith("  ") else unmarked(line) for line in lines)


def _mark_up_example(line: str) -> str:
    command, hash_sign, comment = line.partition("  # ")
    return f"[not dim bold]{unmarked(command)}[/]{hash_sign}{unmarked(comment)}"
