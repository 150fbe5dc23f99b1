"""The command tree of ``runner``."""

from __future__ import annotations

from typing import Annotated

import typer

from runner.cli.commands.demo import demo
from runner.cli.commands.doctor import doctor
from runner.cli.commands.explain import explain
from runner.cli.commands.fetch import fetch
from runner.cli.commands.new import new
from runner.cli.commands.plan import plan
from runner.cli.commands.plugins_check import check_plugins
from runner.cli.commands.plugins_list import list_plugins
from runner.cli.commands.plugins_new import new_plugin
from runner.cli.commands.plugins_show import show_stage
from runner.cli.commands.port import port
from runner.cli.commands.reproduce import reproduce
from runner.cli.commands.run import run
from runner.cli.commands.runs_clean import clean_runs
from runner.cli.commands.runs_list import list_runs
from runner.cli.commands.runs_show import show_run
from runner.cli.commands.schema import schema
from runner.cli.commands.validate import validate
from runner.cli.typer_app import App
from runner.errors import EXIT_MEANINGS

EXITS = "Exit codes: " + " · ".join(f"{int(code)} {what}" for code, what in EXIT_MEANINGS.items())

app = App(
    name="runner",
    help="Runs AI pipelines that are bigger than the machine, from a manifest, stage by stage.",
    epilog=EXITS,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (demo, run, fetch, plan, explain, validate, new, port, reproduce, schema, doctor):
    app.command()(command)

plugins = App(help="List plugins, show their stages, check them, write one.", no_args_is_help=True)
app.add_typer(plugins, name="plugins")
plugins.command("list")(list_plugins)
plugins.command("show")(show_stage)
plugins.command("new")(new_plugin)
plugins.command("check")(check_plugins)

runs = App(help="Show the results of runs, and remove what they no longer need.", no_args_is_help=True)
app.add_typer(runs, name="runs")
runs.command("list")(list_runs)
runs.command("show")(show_run)
runs.command("clean")(clean_runs)


def complete_fresh(arguments: list[str]) -> list[str]:
    """Give ``--fresh`` its value where it has none: every stage.

    The word after it is a stage unless it looks like a file or an option.
    """
    from runner.work import ALL_STAGES

    completed = []
    for n, argument in enumerate(arguments):
        follower = arguments[n + 1] if n + 1 < len(arguments) else "-"
        alone = follower.startswith("-") or "." in follower or "/" in follower
        completed.append(f"--fresh={ALL_STAGES}" if argument == "--fresh" and alone else argument)
    return completed


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Global options."""
    if version:
        from runner import __version__

        typer.echo(f"runner {__version__}")
        raise typer.Exit
