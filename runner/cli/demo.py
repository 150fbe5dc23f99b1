"""``runner demo``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from runner.cli.common import Options, say, warn
from runner.cli.run import always_finished, run
from runner.cli.tailored import refuse_overwriting
from runner.errors import PluginError, UsageError
from runner.files.storage import read_regular, write_atomically
from runner.manifest.problems import did_you_mean
from runner.plugins import discover

if TYPE_CHECKING:
    from runner.api import Demo
    from runner.plugins import Plugin, Plugins


def demo(name: str | None, out: Path | None, options: Options, *, force: bool) -> int:
    """Write a demo's manifest, then run it.

    Raises:
        RunnerError: there is no such demo, another file is in its place, or the run fails.

    """
    with always_finished(options):
        plugins = discover()
        warn(plugins)
        manifest = _write(*_choose(plugins, name), out, force=force)
    return run(manifest, options)


def _choose(plugins: Plugins, name: str | None) -> tuple[Plugin, Demo]:
    demos = plugins.demos()
    if not demos:
        raise PluginError("no installed plugin has a demo; `pip install 'stage-runner[flux]'` brings one")
    known = ", ".join(sorted(demo.name for _, demo in demos))
    found = [(plugin, demo) for plugin, demo in demos if name in (None, demo.name)]
    if not found:
        hint = did_you_mean(str(name), [demo.name for _, demo in demos])
        raise UsageError(f"there is no demo '{name}'{hint} (there are: {known})")
    if len(found) > 1:
        raise UsageError(f"the installed plugins have several demos, name one: {known}")
    return found[0]


def _write(plugin: Plugin, demo: Demo, out: Path | None, *, force: bool) -> Path:
    source = plugin.folder / demo.path
    try:
        text = source.read_bytes()
    except OSError as error:
        owner = f"plugin '{plugin.name}' (from {plugin.distribution})"
        raise PluginError(f"the demo '{demo.name}' of {owner} cannot be read: {error}") from None
    manifest = out or Path(source.name)
    if _holds(manifest, text):
        return manifest
    if manifest.is_file() and not force:
        raise UsageError(
            f"{manifest} is there already, and is another file: `runner run {manifest}` runs it as it is, "
            "-o FILE writes the demo elsewhere, --force overwrites it"
        )
    refuse_overwriting(manifest, force=force)
    write_atomically(manifest, text)
    say(f"wrote {manifest}")
    return manifest


def _holds(path: Path, text: bytes) -> bool:
    try:
        return path.stat().st_size == len(text) and read_regular(path) == text
    except OSError:
        return False
