"""``runner runs``."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from runner.cli import completion
from runner.cli.options import RUNS, Json, RunsDir
from runner.cli.typer_app import App

commands = App(help="What became of runs, and freeing what they no longer need.", no_args_is_help=True)


@commands.command("list")
def runs_list(runs_dir: RunsDir = RUNS, as_json: Json = False) -> int:
    """List the runs: when each last ran, how it stands, and what it takes on the disk.

    Example: runner runs list
    """
    from runner.cli.runs import list_runs

    return list_runs(runs_dir, as_json=as_json)


@commands.command("show")
def runs_show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="The run, as `runner runs list` names it.", autocompletion=completion.runs
        ),
    ],
    every: Annotated[
        bool, typer.Option("--all", help="Every run that the journal tells of, not the last alone.")
    ] = False,
    runs_dir: RunsDir = RUNS,
    as_json: Json = False,
) -> int:
    """Show what became of a run: done, failed and why, times, and peaks beside what was predicted.

    Example: runner runs show demo
    """
    from runner.cli.runs_show import show_run

    return show_run(name, runs_dir, every=every, as_json=as_json)


@commands.command("clean")
def runs_clean(
    names: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(
            metavar="NAME", help="The runs to clean; all, if none is named.", autocompletion=completion.runs
        ),
    ] = None,
    older_than: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--older-than", metavar="AGE", help="Only files last written so long ago: 30d, 12h."),
    ] = None,
    handoffs: Annotated[
        bool, typer.Option("--handoffs", help="Also hand-offs that are asked for, of items that are done.")
    ] = False,
    outputs: Annotated[
        bool, typer.Option("--outputs", help="Also what the runs were for, where nothing is left to do.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be freed, and write nothing.")
    ] = False,
    runs_dir: RunsDir = RUNS,
    as_json: Json = False,
) -> int:
    """Free what no run needs: temporary files, old logs, hand-offs and states that nothing asks for.

    What a run that was stopped would go on with stays, and so does a run that is running.

    Example: runner runs clean --older-than 30d --dry-run
    """
    from runner.cli.runs_clean import before, clean
    from runner.work.clean import CleanSelection

    wanted = CleanSelection(handoffs, outputs, before(older_than))
    return clean(names or [], runs_dir, wanted, dry_run=dry_run, as_json=as_json)
