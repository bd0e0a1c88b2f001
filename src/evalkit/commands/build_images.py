"""evalkit build-images"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Annotated

import anyio
import typer

from evalkit import console, plugins, stdout
from evalkit.cli.options import IMAGE_WORKERS, Quiet, TasksArgument, configured
from evalkit.console.image_progress import ImageProgress
from evalkit.errors import EvalkitError, ExitCode
from evalkit.runs.execute import load_instances, select_instances
from evalkit.runs.provision import Provision, build_directory, private_folder
from evalkit.runs.signals import until_signal
from evalkit.settings import Settings, override


@configured("benchmark", "dataset", "split", "select", "limit", "shard", IMAGE_WORKERS, "push", "drop-after-push")
def build_images(
    settings: Settings,
    tasks: TasksArgument = None,
    force: Annotated[bool, typer.Option("--force", help="Build also what exists")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan, and stop")] = False,
    quiet: Quiet = False,
) -> int:
    """Build the images of the selected instances: those that do not exist, many at a time, with the agent in them.

    The agent is packed once and installed once. Run it again after an interruption: what exists is skipped.

    Examples:
      evalkit build-images my-tasks/                  # from their Dockerfiles
      evalkit build-images --set images.agent_source=../my-agent
      evalkit build-images --push --set images.repository=registry.example/evals
    """
    if tasks is not None:
        settings = override(settings, {"benchmark.name": "tasks", "benchmark.dataset": tasks}, "argument TASKS")
    if settings.config.workspace_kind == "local":
        settings = override(settings, {"workspace.kind": "docker"}, "build-images")
    config = settings.config
    benchmark = plugins.create("benchmarks", config.benchmark.name, config)
    instances = list(select_instances(load_instances(benchmark, config), config).values())
    directory = build_directory(config)
    with ExitStack() as stack:
        stack.enter_context(directory.writing())
        folder = stack.enter_context(private_folder())
        if dry_run:
            return _print_plan(Provision(config, instances, directory, folder))
        watch = stack.enter_context(console.watch_images(directory.log_of, quiet=quiet))
        provision = Provision(config, instances, directory, folder)
        try:
            work = partial(_make, provision, watch, force=force)
            signal_number = anyio.run(until_signal, work, watch.keep_fresh)
        except EvalkitError as error:
            error.document = provision.document()
            raise
    document = provision.document()
    stdout.emit(document)
    if signal_number is not None:
        return 128 + signal_number
    return ExitCode.INCOMPLETE if document["failed"] else ExitCode.DONE


async def _make(provision: Provision, watch: ImageProgress, *, force: bool) -> None:
    await provision.draw_up()
    watch.expect(provision.planned)
    await provision.make(watch, force=force)


def _print_plan(provision: Provision) -> int:
    signal_number = anyio.run(until_signal, provision.draw_up, anyio.sleep_forever)
    if signal_number is not None:
        return 128 + signal_number
    stdout.emit(provision.describe_plan())
    return ExitCode.DONE
