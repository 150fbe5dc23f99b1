"""Files that a template's parameters name: copied beside the manifest that is made from it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from runner.errors import PluginError
from runner.files.storage import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runner.api import Template
    from runner.manifest.load import Manifest
    from runner.plugins import Plugin


@contextmanager
def copied(plugin: Plugin, template: Template, manifest: Manifest) -> Iterator[tuple[Path, ...]]:
    """Copy the files that the manifest names and that are not beside it yet; yields their new paths.

    They are removed again if the block raises.

    Raises:
        PluginError: a file of the template cannot be read.
        StorageError: a file cannot be written.

    """
    named = set(_strings(manifest.table.model_dump(by_alias=True)))
    paths: list[Path] = []
    try:
        for source in (plugin.folder / file for file in template.files):
            path = manifest.path.parent / source.name
            if source.name in named and not path.exists():
                write_atomically(path, _read(source))
                paths.append(path)
        yield tuple(paths)
    except BaseException:
        for path in paths:
            path.unlink(missing_ok=True)
        raise


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise PluginError(f"{path}, a file of a template, cannot be read: {error.strerror}") from None


def _strings(value: Any) -> Iterator[str]:
    """All strings in a table, at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _strings(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _strings(one)
