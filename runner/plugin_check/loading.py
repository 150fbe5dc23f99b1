"""Checks of a plugin as the supervisor loads it: no stage is run, and nothing heavy may be imported."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from runner import hookspecs
from runner.api import Tensor
from runner.errors import PluginError
from runner.plugin_check.checks import BROKEN, FORMULA, HOOKS, IMPORTS, LOADS, OK, WARN, Verdict
from runner.plugin_check.imports import ImportWatch
from runner.plugin_check.parameters import check_params
from runner.plugins import discover, load_object

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.metadata import EntryPoint

    from runner.api import Stage
    from runner.plugins import Plugin, Plugins

SLOW = 1.0  # seconds of loading, for which every command waits


def check_loading(entry: EntryPoint) -> Iterator[Verdict]:
    """Load a plugin, which must not be imported in this process yet, and check what it declares."""
    with ImportWatch(entry.module.partition(".")[0]) as watch:
        started = time.perf_counter()
        plugins = discover([entry])
        seconds = time.perf_counter() - started
        if plugins.broken:
            reason = plugins.broken[0].reason
            advice = "until this is fixed, none of its stages can be used"
            yield Verdict(entry.name, LOADS, BROKEN, reason, advice)
            return
        (plugin,) = plugins.loaded
        yield _loads(plugin)
        of_stages = [check(stage) for stage in plugin.stages for check in (check_params, _formula)]
    yield _imports(plugin, watch, seconds)
    yield _hooks(plugins, plugin)
    yield from of_stages


def _loads(plugin: Plugin) -> Verdict:
    misnamed = [stage.name for stage in plugin.stages if not stage.name.startswith(f"{plugin.name}.")]
    if misnamed:
        message = f"stages not named after the plugin: {', '.join(misnamed)}"
        return Verdict(plugin.name, LOADS, WARN, message, f"name them {plugin.name}.STAGE")
    stages = f"{len(plugin.stages)} stage{'s' if len(plugin.stages) != 1 else ''}"
    return Verdict(plugin.name, LOADS, OK, f"{plugin.distribution} {plugin.version}, {stages}")


def _imports(plugin: Plugin, watch: ImportWatch, seconds: float) -> Verdict:
    if watch.found:
        message = "; ".join(f"{library} is imported by {where}" for library, where in watch.found.items())
        advice = "import it in the module of `start`, or under `if TYPE_CHECKING:`"
        return Verdict(plugin.name, IMPORTS, BROKEN, message, advice)
    message = f"in {seconds * 1000:.0f} ms, nothing heavy"
    if seconds > SLOW:
        advice = "every command waits for it; `python -X importtime` shows what is slow"
        return Verdict(plugin.name, IMPORTS, WARN, message, advice)
    return Verdict(plugin.name, IMPORTS, OK, message)


def _hooks(plugins: Plugins, plugin: Plugin) -> Verdict:
    """Warn of hooks unknown to this runner; only those marked ``optionalhook`` load at all."""
    marked = [
        options.get("specname") or name
        for name in vars(plugin.module)
        if (options := plugins.manager.parse_hookimpl_opts(plugin.module, name)) is not None
    ]
    unknown = [hook for hook in marked if not hasattr(hookspecs, hook)]
    if unknown:
        message = f"this runner never calls {', '.join(unknown)}"
        return Verdict(plugin.name, HOOKS, WARN, message, "correct the name, or keep it for a later runner")
    return Verdict(plugin.name, HOOKS, OK, ", ".join(marked) or "none")


def _formula(stage: Stage) -> Verdict:
    if not stage.memory and not _has_tensors(stage):
        return Verdict(stage.name, FORMULA, OK, "none needed: it has neither tensors nor weights")
    if not stage.memory:
        advice = (
            "name a function of (params, sizes) in `memory`; without it the plan counts 0 bytes for items"
        )
        return Verdict(stage.name, FORMULA, WARN, "it has none", advice)
    try:
        formula = load_object(stage.memory)
    except PluginError as error:
        return Verdict(stage.name, FORMULA, BROKEN, str(error), "name it as 'package.module:function'")
    if not callable(formula):
        return Verdict(stage.name, FORMULA, BROKEN, f"'{stage.memory}' is not a function")
    return Verdict(stage.name, FORMULA, OK, stage.memory)


def _has_tensors(stage: Stage) -> bool:
    passed = (*stage.inputs, *stage.outputs)
    return bool(stage.components) or any(isinstance(one, Tensor) for one in passed)
