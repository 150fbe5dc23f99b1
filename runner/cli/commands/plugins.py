"""``runner plugins``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from runner.cli import completion
from runner.cli.options import Json
from runner.cli.typer_app import App

commands = App(help="List plugins, look at their stages, check them, write one.", no_args_is_help=True)


@commands.command("list")
def plugins_list(as_json: Json = False) -> int:
    """List the installed plugins with their stages and hooks, and those that are set aside.

    Example: runner plugins list --json
    """
    from runner.cli import plugins

    return plugins.list_plugins(as_json=as_json)


@commands.command("show")
def plugins_show(
    stage: Annotated[
        str,
        typer.Argument(
            metavar="STAGE",
            help="The stage, as manifests write it: PLUGIN.STAGE.",
            autocompletion=completion.installed_stages,
        ),
    ],
    as_json: Json = False,
) -> int:
    """Show what a stage can be set to, with defaults and bounds, and what it takes, leaves and loads.

    Example: runner plugins show flux.diffuse
    """
    from runner.cli.plugins_show import show_stage

    return show_stage(stage, as_json=as_json)


@commands.command("new")
def plugins_new(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="What manifests will write before the dot, such as blur.")
    ],
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--output", "-o", metavar="DIR", help="Where to write it; ./NAME if left out."),
    ] = None,
    as_json: Json = False,
) -> int:
    """Write a plugin to begin from: it installs, runs, and passes its own tests as it is.

    Example: runner plugins new blur
    """
    from runner.cli.plugins_new import new

    return new(name, output, as_json=as_json)


@commands.command("check")
def plugins_check(
    names: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(
            metavar="NAME",
            help="The plugins; all of them, if left out.",
            autocompletion=completion.plugins,
        ),
    ] = None,
    manifest: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--manifest",
            metavar="MANIFEST",
            help="Run its stages on its first two items: stages that load a model need that.",
            autocompletion=completion.manifests,
        ),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout", metavar="SECONDS", min=1, help="Most time to load a plugin, and for a stage."
        ),
    ] = 120,
    as_json: Json = False,
) -> int:
    """Load plugins in a process of their own, run their stages, and report what is wrong with them.

    Without a manifest, stages are run on synthetic parameters and inputs. Nothing is written.

    Example: runner plugins check flux --manifest demo.toml
    """
    from runner.cli.plugins_check import check

    return check(names or [], manifest, timeout, as_json=as_json)
