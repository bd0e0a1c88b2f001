"""evalkit runs"""

from __future__ import annotations

from typing import Annotated

import typer

from evalkit import console, stdout
from evalkit.cli.options import Quiet, configured
from evalkit.runs.listing import list_runs_of
from evalkit.settings import Settings


@configured("run-dir")
def runs(
    settings: Settings,
    brief: Annotated[bool, typer.Option("--brief", help="Read manifests only: no progress, rates or costs")] = False,
    quiet: Quiet = False,
) -> int:
    """List the runs in the run directory, newest last, even during a run.

    `done` counts the instances with a result. The rate covers the instances with a verdict, as in `aggregate`. Damaged
    runs are listed with the reason.

    Examples:
      evalkit runs
      evalkit runs --quiet | jq -r '.runs[-1].run'   # the newest
      evalkit runs --quiet | jq '.runs[] | select(.running)'
    """
    document = list_runs_of(settings.config.output.dir, brief=brief)
    stdout.emit(document)
    if not quiet:
        console.show_runs(document)
    return 0
