"""Discovers plugins. A broken one is set aside with a reason; it is an error only where it is used."""

from __future__ import annotations

import contextlib
import difflib
import gc
import importlib
import sys
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import metadata, resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import pluggy

from runner import declarations, hookspecs
from runner.api import API_VERSION, Demo, Executor, Stage, Template
from runner.declarations import DeclarationError, returned
from runner.errors import PluginError, in_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import ModuleType

GROUP = "runner"
_Kind = TypeVar("_Kind")


@dataclass(frozen=True)
class Plugin:
    """A plugin that loaded."""

    name: str
    distribution: str
    version: str
    module: ModuleType
    stages: tuple[Stage, ...]
    hooks: tuple[str, ...]
    templates: tuple[Template, ...] = ()
    demos: tuple[Demo, ...] = ()
    executors: tuple[Executor, ...] = ()

    @property
    def folder(self) -> Path:
        """The folder of the plugin's top-level package, which may contain models."""
        package = self.module.__name__.partition(".")[0]
        return Path(str(resources.files(package)))


@dataclass(frozen=True)
class Quarantined:
    """A plugin, or one stage of it, that cannot be used."""

    name: str
    distribution: str
    reason: str
    stages: tuple[str, ...] = ()

    def __str__(self) -> str:
        what = f"stage '{self.stages[0]}' of plugin" if self.stages else "plugin"
        return f"{what} '{self.name}' (from {self.distribution}) is set aside: {self.reason}"


def pluggy_manager() -> pluggy.PluginManager:
    """A plugin manager with the hooks of :mod:`runner.hookspecs`."""
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(hookspecs)
    return manager


@dataclass
class Plugins:
    """The installed plugins: those that loaded, and those that are broken."""

    loaded: list[Plugin] = field(default_factory=list)
    broken: list[Quarantined] = field(default_factory=list)
    manager: pluggy.PluginManager = field(default_factory=pluggy_manager)

    def stages(self) -> dict[str, tuple[Plugin, Stage]]:
        return {stage.name: (plugin, stage) for plugin in self.loaded for stage in plugin.stages}

    def distribution_of(self, stage: str) -> str:
        """The distribution of the plugin that offers a stage."""
        return self.stages()[stage][0].distribution

    def templates(self) -> list[tuple[Plugin, Template]]:
        return [(plugin, template) for plugin in self.loaded for template in plugin.templates]

    def demos(self) -> list[tuple[Plugin, Demo]]:
        return [(plugin, demo) for plugin in self.loaded for demo in plugin.demos]

    def get(self, name: str) -> Plugin:
        """The plugin of that entry-point name.

        Raises:
            PluginError: it is not installed, or broken.

        """
        for plugin in self.loaded:
            if plugin.name == name:
                return plugin
        raise PluginError(self._missing(f"plugin '{name}'", name, [p.name for p in self.loaded]))

    def stage(self, name: str) -> Stage:
        """The stage that a manifest's ``uses`` names.

        Raises:
            PluginError: no installed plugin offers it, or that plugin is broken.

        """
        known = self.stages()
        if name in known:
            return known[name][1]
        for broken in self.broken:
            if name in broken.stages:
                raise PluginError(str(broken))
        raise PluginError(self._missing(f"stage '{name}'", name.partition(".")[0], list(known), name))

    def executor(self, name: str) -> Executor:
        """The executor that a manifest's ``[executor] uses`` names, unless that is this machine.

        Raises:
            PluginError: no installed plugin offers it, or several do.

        """
        offered = [(plugin, one) for plugin in self.loaded for one in plugin.executors]
        found = [(plugin, one) for plugin, one in offered if one.name == name]
        if len(found) > 1:
            names = " and ".join(f"{plugin.distribution} ({plugin.name})" for plugin, _ in found)
            raise PluginError(f"{names} both offer executor '{name}'; uninstall one")
        if not found:
            known = [declarations.LOCAL, *(one.name for _, one in offered)]
            missing = self._missing(f"executor '{name}'", name, known, name)
            raise PluginError(
                f"{missing}; `pip install runner-{name}` brings it, if it is one of runner's own"
            )
        return found[0][1]

    def _missing(self, what: str, plugin: str, known: list[str], name: str = "") -> str:
        for broken in self.broken:
            if broken.name == plugin and not broken.stages:
                return f"{what} is not available: {broken}"
        near = difflib.get_close_matches(name or plugin, known, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        return f"{what} is offered by no installed plugin{hint} (`runner plugins list` shows them)"

    def notify(self, hook: str, **arguments: Any) -> None:
        """Call every implementation of a lifecycle hook; one that fails prints a line on stderr."""
        for impl in getattr(self.manager.hook, hook).get_hookimpls():
            if impl.wrapper or impl.hookwrapper:
                continue
            try:
                with contextlib.redirect_stdout(sys.stderr):  # stdout is for data
                    impl.function(*[arguments[name] for name in impl.argnames])
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                line = f"runner: plugin '{impl.plugin_name}': {hook} raised {_describe(error)}"
                print(line, file=sys.stderr)  # noqa: T201


def discover(entry_points: Iterable[metadata.EntryPoint] | None = None) -> Plugins:
    """Load all installed plugins; those that fail are in ``broken``."""
    found = Plugins()
    for entry in metadata.entry_points(group=GROUP) if entry_points is None else entry_points:
        distribution = _distribution(entry)
        try:
            with contextlib.redirect_stdout(sys.stderr):  # stdout is for data
                found.loaded.append(_load(found.manager, entry))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin may even call sys.exit at import
            found.broken.append(Quarantined(entry.name, distribution, _describe(error)))
    _resolve_conflicts(found)
    return found


def _load(manager: pluggy.PluginManager, entry: metadata.EntryPoint) -> Plugin:
    module = entry.load()
    version = getattr(module, "RUNNER_API", None)
    if type(version) is not int or version != API_VERSION:
        actual = "no RUNNER_API" if version is None else f"RUNNER_API = {version!r}"
        raise DeclarationError(f"it sets {actual}; this runner supports {API_VERSION}")
    if manager.has_plugin(entry.name):
        raise DeclarationError(f"another distribution has a plugin named '{entry.name}' already")
    hooks = tuple(_hook_names(manager, module))
    manager.register(module, entry.name)
    package = sys.modules[module.__name__.partition(".")[0]]
    declared = partial(_declared, manager, module)
    try:
        stages = tuple(declared("runner_stages", Stage, declarations.check_stage))
        executors = tuple(declared("runner_executors", Executor, declarations.check_executor))
        templates = tuple(
            declared("runner_templates", Template, partial(declarations.check_template, package=package))
        )
        demos = tuple(declared("runner_demos", Demo, partial(declarations.check_demo, package=package)))
    except BaseException:
        manager.unregister(module)
        raise
    released = entry.dist.version if entry.dist else ""
    offered = (stages, hooks, templates, demos, executors)
    return Plugin(entry.name, _distribution(entry), released, module, *offered)


def _hook_names(manager: pluggy.PluginManager, module: ModuleType) -> Iterator[str]:
    known = {name for name in vars(hookspecs) if name.startswith("runner_")}
    for name in vars(module):
        options = manager.parse_hookimpl_opts(module, name)
        if options is None:
            if name in known:
                raise DeclarationError(f"{name} is not marked with @hookimpl")
            continue
        hook = options.get("specname") or name
        if hook in known:
            yield hook
        elif not options.get("optionalhook"):
            near = difflib.get_close_matches(hook, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise DeclarationError(f"there is no hook {hook}{hint}")


def _declared(
    manager: pluggy.PluginManager,
    module: ModuleType,
    hook: str,
    kind: type[_Kind],
    check: Callable[[_Kind], None],
) -> Iterator[_Kind]:
    """Yield what the module's own implementation of a hook returned, each checked."""
    for impl in getattr(manager.hook, hook).get_hookimpls():
        if impl.plugin is module:
            for one in returned(hook, cast("Any", impl.function()), kind):
                check(one)
                yield one


def _resolve_conflicts(found: Plugins) -> None:
    """Give a stage that several plugins offer to the one that it is named after, or to none."""
    owners: dict[str, list[Plugin]] = {}
    for plugin in found.loaded:
        for stage in plugin.stages:
            owners.setdefault(stage.name, []).append(plugin)
    for name, plugins in owners.items():
        if len(plugins) == 1:
            continue
        namesakes = [p for p in plugins if p.name == name.partition(".")[0]]
        owner = namesakes[0].name if len(namesakes) == 1 else None
        others = [p for p in plugins if p.name != owner]
        names = " and ".join(f"{p.distribution} ({p.name})" for p in others)
        reason = (
            f"{names} offers it, and it is {owner}'s" if owner else f"{names} both offer it; uninstall one"
        )
        found.broken.append(Quarantined(others[0].name, others[0].distribution, reason, (name,)))
        losing = {p.name for p in others}
        found.loaded = [
            replace(p, stages=tuple(s for s in p.stages if s.name != name)) if p.name in losing else p
            for p in found.loaded
        ]


def _distribution(entry: metadata.EntryPoint) -> str:
    return entry.dist.name if entry.dist else "an unknown distribution"


def _describe(error: BaseException) -> str:
    if isinstance(error, DeclarationError):
        return str(error)
    return in_words(error).strip().removesuffix(":").splitlines()[0]


def load_object(dotted: str) -> Any:
    """The object that ``"package.module:attribute"`` names.

    Raises:
        PluginError: it cannot be imported.

    """
    module, _, attribute = dotted.partition(":")
    try:
        with collection_paused():
            return getattr(importlib.import_module(module), attribute)
    except Exception as error:
        raise PluginError(f"cannot import '{dotted}': {_describe(error)}") from error


@contextlib.contextmanager
def collection_paused() -> Iterator[None]:
    """Garbage collection is off, which saves a fifth of the CPU time of importing torch or diffusers."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
