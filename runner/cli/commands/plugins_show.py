"""``runner plugins show``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runner.cli import completion
from runner.cli.options import Json
from runner.cli.output import console, print_json
from runner.cli.tables import table
from runner.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

_BOUNDS = {
    "minimum": "at least {}",
    "more_than": "more than {}",
    "maximum": "at most {}",
    "less_than": "less than {}",
    "multiple_of": "a multiple of {}",
    "min_length": "at least {} long",
    "max_length": "at most {} long",
    "pattern": "like {}",
}


def show_stage(
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
    """Show a stage's parameters with defaults and bounds, and what it takes, leaves and loads.

    Example: runner plugins show flux.diffuse
    """
    from runner.cli.pipelines import warn_of_broken
    from runner.cli.stage_details import parameters_of, stage_details
    from runner.plugins import discover

    plugins = discover()
    offered = [found.name for plugin in plugins.loaded if plugin.name == stage for found in plugin.stages]
    if offered:
        raise UsageError(f"'{stage}' is a plugin; its stages are {', '.join(offered)}")
    declared = plugins.stage(stage)
    plugin = plugins.stages()[stage][0]
    parameters = parameters_of(declared)
    if as_json:
        source = {"plugin": plugin.name, "distribution": plugin.distribution, "released": plugin.version}
        print_json({**source, **stage_details(declared)})
        return ExitCode.DONE
    shown = console()
    shown.print(f"{stage}: {declared.summary}" if declared.summary else stage)
    shown.print(f"version {declared.version} of the stage, from {plugin.distribution} {plugin.version}")
    details = stage_details(declared)
    if details["depends_on_model"]:
        shown.print(
            "\nits parameters, and what it loads, depend on the model: `runner validate MANIFEST` checks them"
        )
    _show_tables(shown, parameters, details)
    formula = "a formula predicts" if declared.memory else "no formula predicts"
    shown.print(f"\nmemory: {formula} what an item takes beside the weights")
    warn_of_broken(plugins)
    return ExitCode.DONE


def _show_tables(to: Console, parameters: Sequence[dict[str, Any]], details: dict[str, Any]) -> None:
    """A table each of parameters, inputs, outputs and components, where there are some."""
    rows = [(p["name"], _default(p), p["type"], _bounds(p), p["description"]) for p in parameters]
    _show_table(to, ("parameter", "default", "type", "", "meaning"), rows)
    for title in ("takes", "leaves"):
        handed = [(one["name"], _kind(one), "optional" if one["optional"] else "") for one in details[title]]
        _show_table(to, (title, "", ""), handed)
    loads = [(c["name"], f"{c['folder']}/", c["class"], _read(c)) for c in details["loads"]]
    _show_table(to, ("loads", "folder", "class", ""), loads)


def _show_table(to: Console, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    if rows:
        to.print()
        to.print(table(columns, rows))


def _default(parameter: dict[str, Any]) -> str:
    if parameter["required"]:
        return "(needed)"
    default = parameter["default"]
    return "(not set)" if default is None else json.dumps(default, ensure_ascii=False)


def _bounds(parameter: dict[str, Any]) -> str:
    return ", ".join(text.format(parameter[bound]) for bound, text in _BOUNDS.items() if bound in parameter)


def _kind(declared: dict[str, Any]) -> str:
    match declared["kind"]:
        case "tensor":
            shape = f" ({', '.join(map(str, declared['shape']))})" if declared["shape"] else ""
            return f"tensor, {declared['dtype']}{shape}"
        case "file":
            return f"file, {declared['suffix']}" if declared["suffix"] else "file"
        case "bundle":
            return "named tensors and JSON"
    return "text"


def _read(component: dict[str, Any]) -> str:
    return "only its config.json" if component["config_only"] else ""
