"""The command ``runner``: what all commands have in common, and the groups that they come in."""

from __future__ import annotations

from typing import Annotated

import typer

from runner.cli.commands import demo, machine, manifests, plugins, runs, writing
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
for group in (demo, manifests, writing, machine):
    app.add_typer(group.commands)
app.add_typer(plugins.commands, name="plugins")
app.add_typer(runs.commands, name="runs")


def complete_fresh(arguments: list[str]) -> list[str]:
    """``--fresh`` alone means every stage; what follows it is a stage unless it is a file or an option."""
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
