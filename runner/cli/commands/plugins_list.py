"""``runner plugins list``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runner.cli.options import Json
from runner.cli.output import console, print_json
from runner.cli.tables import table
from runner.errors import ExitCode

if TYPE_CHECKING:
    from runner.plugins import Plugins


def list_plugins(as_json: Json = False) -> int:
    """List the installed plugins with their stages and hooks, and the broken ones.

    Example: runner plugins list --json
    """
    from runner.cli.pipelines import warn_of_broken
    from runner.plugins import discover

    plugins = discover()
    if as_json:
        print_json(_as_json(plugins))
    else:
        _show(plugins)
        warn_of_broken(plugins)
    return ExitCode.DONE


def _show(plugins: Plugins) -> None:
    shown = console()
    for plugin in plugins.loaded:
        hooks = f" · hooks: {', '.join(plugin.hooks)}" if plugin.hooks else ""
        shown.print(f"{plugin.name} · {plugin.distribution} {plugin.version}{hooks}")
    if not plugins.loaded:
        shown.print("no plugin is installed; `pip install runner-flux` brings FLUX")
        return
    rows = [
        (
            stage.name,
            str(stage.version),
            ", ".join(i.name for i in stage.inputs if not i.optional),
            ", ".join(o.name for o in stage.outputs if not o.optional),
            stage.summary,
        )
        for plugin in plugins.loaded
        for stage in plugin.stages
    ]
    shown.print(table(("stage", "version", "takes", "leaves", "what it does"), rows))
    executors = [(one.name, one.summary) for plugin in plugins.loaded for one in plugin.executors]
    if executors:
        shown.print(table(("executor", "where it runs stages"), executors))


def _as_json(plugins: Plugins) -> dict[str, Any]:
    from runner.cli.stage_details import stage_details

    return {
        "plugins": [
            {
                "name": plugin.name,
                "distribution": plugin.distribution,
                "version": plugin.version,
                "hooks": plugin.hooks,
                "stages": [stage_details(stage) for stage in plugin.stages],
                "executors": [{"name": one.name, "summary": one.summary} for one in plugin.executors],
            }
            for plugin in plugins.loaded
        ],
        "broken": [
            {"name": b.name, "distribution": b.distribution, "reason": b.reason, "stages": b.stages}
            for b in plugins.broken
        ],
    }
