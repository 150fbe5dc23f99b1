"""``runner demo``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from runner.cli.options import RUNS, Force, Json, RunsDir
from runner.cli.output import say
from runner.cli.tailored import refuse_overwriting
from runner.errors import PluginError, UsageError

if TYPE_CHECKING:
    from runner.api import Demo
    from runner.plugins import Plugin, Plugins


def demo(
    name: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(metavar="NAME", help="The demo, if the installed plugins have several."),
    ] = None,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--output", "-o", metavar="FILE", help="Where to write the manifest; by default its own name."
        ),
    ] = None,
    force: Force = False,
    runs_dir: RunsDir = RUNS,
    as_json: Json = False,
) -> int:
    """Write a plugin's demo manifest into this folder and run it. Needs no download, token or GPU.

    If the file exists, it is run if it is the same manifest; another file is not overwritten.

    Example: runner demo
    """
    from runner.cli.pipelines import discover_plugins
    from runner.cli.running import RunRequest, end_event_on_error, run_manifest

    with end_event_on_error(as_json=as_json):
        manifest = _write(*_choose(discover_plugins(), name), out, force=force)
    return run_manifest(manifest, RunRequest(runs_dir=runs_dir, as_json=as_json))


def _choose(plugins: Plugins, name: str | None) -> tuple[Plugin, Demo]:
    from runner.manifest.problems import did_you_mean

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
    from runner.files.storage import write_atomically

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
    from runner.files.storage import read_regular

    try:
        return path.stat().st_size == len(text) and read_regular(path) == text
    except OSError:
        return False
