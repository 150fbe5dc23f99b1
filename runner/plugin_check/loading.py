"""Checks of a plugin as the supervisor meets it: nothing is run, and nothing heavy may be imported."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from runner import hookspecs
from runner.api import Tensor
from runner.errors import PluginError
from runner.plugin_check.checks import BROKEN, FORMULA, HOOKS, IMPORTS, LOADS, OK, WARN, Verdict
from runner.plugin_check.imports import Watch
from runner.plugin_check.parameters import check_params
from runner.plugins import discover, load_object

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.metadata import EntryPoint

    from runner.api import Stage
    from runner.plugins import Plugin, Plugins

SLOW = 1.0  # seconds; what every command waits for


def check_loading(entry: EntryPoint) -> Iterator[Verdict]:
    """Load a plugin, for the first time in this process, and look at what it declares."""
    with Watch(entry.module.partition(".")[0]) as watch:
        started = time.perf_counter()
        plugins = discover([entry])
        seconds = time.perf_counter() - started
        if plugins.broken:
            reason = plugins.broken[0].reason
            advice = "until this is mended, none of its stages is there for anybody"
            yield Verdict(entry.name, LOADS, BROKEN, reason, advice)
            return
        (plugin,) = plugins.loaded
        yield _loads(plugin)
        of_stages = [verdict for stage in plugin.stages for verdict in _check_stage(stage)]
    yield _imports(plugin, watch, seconds)
    yield _hooks(plugins, plugin)
    yield from of_stages


def _loads(plugin: Plugin) -> Verdict:
    strange = [stage.name for stage in plugin.stages if not stage.name.startswith(f"{plugin.name}.")]
    if strange:
        told = f"not named after the plugin: {', '.join(strange)}"
        return Verdict(plugin.name, LOADS, WARN, told, f"name them {plugin.name}.STAGE, as manifests have it")
    stages = f"{len(plugin.stages)} stage{'s' if len(plugin.stages) != 1 else ''}"
    return Verdict(plugin.name, LOADS, OK, f"{plugin.distribution} {plugin.version}, {stages}")


def _imports(plugin: Plugin, watch: Watch, seconds: float) -> Verdict:
    if watch.found:
        told = "; ".join(f"{library} is imported by {where}" for library, where in watch.found.items())
        advice = "import it where `start` is, or under `if TYPE_CHECKING:`; the supervisor has no use for it"
        return Verdict(plugin.name, IMPORTS, BROKEN, told, advice)
    told = f"in {seconds * 1000:.0f} ms, nothing heavy"
    if seconds > SLOW:
        return Verdict(plugin.name, IMPORTS, WARN, told, "every command waits for it: `python -X importtime`")
    return Verdict(plugin.name, IMPORTS, OK, told)


def _hooks(plugins: Plugins, plugin: Plugin) -> Verdict:
    """Of what is marked as a hook; one that is unknown is fatal unless it says that it may be."""
    marked = [
        options.get("specname") or name
        for name in vars(plugin.module)
        if (options := plugins.manager.parse_hookimpl_opts(plugin.module, name)) is not None
    ]
    unknown = [hook for hook in marked if not hasattr(hookspecs, hook)]
    if unknown:
        told = f"this runner never calls {', '.join(unknown)}"
        return Verdict(plugin.name, HOOKS, WARN, told, "mend the name, or leave it for a later runner")
    return Verdict(plugin.name, HOOKS, OK, ", ".join(marked) or "none")


def _check_stage(stage: Stage) -> Iterator[Verdict]:
    yield check_params(stage)
    yield _formula(stage)


def _formula(stage: Stage) -> Verdict:
    if not stage.memory and not _has_tensors(stage):
        return Verdict(stage.name, FORMULA, OK, "none, and neither tensors nor weights")
    if not stage.memory:
        advice = (
            "name a function of (params, sizes) in `memory`; without it the plan counts nothing for items"
        )
        return Verdict(stage.name, FORMULA, WARN, "there is none", advice)
    try:
        formula = load_object(stage.memory)
    except PluginError as error:
        return Verdict(stage.name, FORMULA, BROKEN, str(error), "name it as 'package.module:function'")
    if not callable(formula):
        return Verdict(stage.name, FORMULA, BROKEN, f"'{stage.memory}' is no function")
    return Verdict(stage.name, FORMULA, OK, stage.memory)


def _has_tensors(stage: Stage) -> bool:
    passed = (*stage.inputs, *stage.outputs)
    return bool(stage.components) or any(isinstance(one, Tensor) for one in passed)
