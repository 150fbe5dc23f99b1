"""``runner plugins show``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from runner.cli.common import console, print_json, warn
from runner.cli.stage_details import parameters_of, stage_details
from runner.errors import ExitCode, UsageError
from runner.plugins import discover

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from runner.api import Stage
    from runner.plugins import Plugin

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


def show_stage(name: str, *, as_json: bool) -> int:
    """Show what a stage can be set to, takes, leaves and loads.

    Raises:
        UsageError: it is the name of a plugin.
        PluginError: no plugin that works here offers it, or its parameters cannot be described.

    """
    plugins = discover()
    offered = [stage.name for plugin in plugins.loaded if plugin.name == name for stage in plugin.stages]
    if offered:
        raise UsageError(f"'{name}' is a plugin; its stages are {', '.join(offered)}")
    stage = plugins.stage(name)
    plugin = plugins.stages()[name][0]
    parameters = parameters_of(stage)
    if as_json:
        where = {"plugin": plugin.name, "distribution": plugin.distribution, "released": plugin.version}
        print_json({**where, **stage_details(stage)})
        return ExitCode.DONE
    _show(console(), plugin, stage, parameters)
    warn(plugins)
    return ExitCode.DONE


def _show(to: Console, plugin: Plugin, stage: Stage, parameters: Sequence[dict[str, Any]]) -> None:
    details = stage_details(stage)
    to.print(f"{stage.name}: {stage.summary}" if stage.summary else stage.name)
    to.print(f"version {stage.version} of the stage, from {plugin.distribution} {plugin.version}")
    _table(
        to,
        ("parameter", "default", "type", "", "meaning"),
        [(p["name"], _default(p), p["type"], _bounds(p), p["description"]) for p in parameters],
    )
    for title in ("takes", "leaves"):
        _table(
            to,
            (title, "", ""),
            [(one["name"], _kind(one), "optional" if one["optional"] else "") for one in details[title]],
        )
    _table(
        to,
        ("loads", "folder", "class", ""),
        [(c["name"], f"{c['folder']}/", c["class"], _read(c)) for c in details["loads"]],
    )
    to.print()
    has = "a formula predicts" if stage.memory else "no formula predicts"
    to.print(f"memory: {has} what an item takes beside the weights")


def _table(to: Console, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    if not rows:
        return
    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*map(Text, row))
    to.print()
    to.print(table)


def _default(parameter: dict[str, Any]) -> str:
    if parameter["required"]:
        return "(needed)"
    default = parameter["default"]
    return "(not set)" if default is None else json.dumps(default, ensure_ascii=False)


def _bounds(parameter: dict[str, Any]) -> str:
    return ", ".join(words.format(parameter[bound]) for bound, words in _BOUNDS.items() if bound in parameter)


def _kind(declared: dict[str, Any]) -> str:
    match declared["kind"]:
        case "tensor":
            shape = f" ({', '.join(map(str, declared['shape']))})" if declared["shape"] else ""
            return f"tensor, {declared['dtype']}{shape}"
        case "file":
            return f"file, {declared['suffix']}" if declared["suffix"] else "file"
    return "text"


def _read(component: dict[str, Any]) -> str:
    return "its config.json alone" if component["config_only"] else ""
