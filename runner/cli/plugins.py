"""``runner plugins``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.cli.common import console, print_json, warn
from runner.cli.stage_details import stage_details
from runner.errors import ExitCode
from runner.plugins import discover

if TYPE_CHECKING:
    from runner.plugins import Plugin, Plugins


def list_plugins(*, as_json: bool) -> int:
    """Show every plugin, working or not."""
    plugins = discover()
    if as_json:
        print_json(_as_dict(plugins))
        return ExitCode.DONE
    from rich.table import Table

    table = Table("stage", "version", "takes", "leaves", "what it does", box=None, pad_edge=False)
    for plugin in plugins.loaded:
        for stage in plugin.stages:
            takes = ", ".join(i.name for i in stage.inputs if not i.optional)
            leaves = ", ".join(o.name for o in stage.outputs if not o.optional)
            table.add_row(stage.name, str(stage.version), takes, leaves, stage.summary)
    shown = console()
    for plugin in plugins.loaded:
        hooks = f" · hooks: {', '.join(plugin.hooks)}" if plugin.hooks else ""
        shown.print(f"{plugin.name} · {plugin.distribution} {plugin.version}{hooks}")
    if not plugins.loaded:
        shown.print("no plugin is installed; `pip install runner-flux` brings FLUX")
    else:
        shown.print(table)
    warn(plugins)
    return ExitCode.DONE


def _as_dict(plugins: Plugins) -> dict[str, object]:
    broken = [
        {
            "name": b.name,
            "distribution": b.distribution,
            "reason": b.reason,
            "stages": list(b.stages),
        }
        for b in plugins.broken
    ]
    return {"plugins": [_plugin(plugin) for plugin in plugins.loaded], "broken": broken}


def _plugin(plugin: Plugin) -> dict[str, object]:
    return {
        "name": plugin.name,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "hooks": list(plugin.hooks),
        "stages": [stage_details(stage) for stage in plugin.stages],
    }
