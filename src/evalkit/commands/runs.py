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
    brief: Annotated[
        bool, typer.Option("--brief", help="Read no results: who, what and when, without rates and costs")
    ] = False,
    quiet: Quiet = False,
) -> int:
    """List the runs of the run directory, the newest last, also while they run.

    `done` is what has a result, of all that was selected. The rate is that of what has a verdict, as in `aggregate`. A
    damaged run is listed with what is wrong with it.

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
