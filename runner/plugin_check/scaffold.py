"""Writes a new plugin from the files in ``template``, a working package with placeholders for its names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from runner import __version__
from runner.errors import UsageError
from runner.files.storage import storage_errors
from runner.plugins import GROUP

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.resources.abc import Traversable

SUFFIX = ".in"
_RENAMED = {"gitignore": ".gitignore"}


@dataclass(frozen=True)
class Names:
    """A plugin's names: ``name`` in manifests, and those of its package, distribution and folder."""

    name: str

    @property
    def package(self) -> str:
        return f"runner_{self.name}"

    @property
    def distribution(self) -> str:
        return f"runner-{self.folder}"

    @property
    def folder(self) -> str:
        return self.name.replace("_", "-")

    @staticmethod
    def of(given: str) -> Names:
        """The names of a plugin; ``My-Blur``, ``my_blur`` and ``runner-my-blur`` are the same one.

        Raises:
            UsageError: it is not a valid name, or an installed plugin has it.

        """
        plain = re.sub(r"[-_.\s]+", "_", given.strip().lower()).removeprefix("runner_").strip("_")
        if not re.fullmatch(r"[a-z][a-z0-9_]*", plain) or plain == GROUP:
            raise UsageError(
                f"'{given}' cannot be a plugin's name: letters, digits and dashes, the first one a letter, "
                "such as my-blur"
            )
        for entry in metadata.entry_points(group=GROUP, name=plain):
            owner = entry.dist.name if entry.dist else "another distribution"
            raise UsageError(f"a plugin '{plain}' is installed already, from {owner}: choose another name")
        return Names(plain)


def scaffold(names: Names, folder: Path) -> list[Path]:
    """Write a plugin into a new or empty folder; returns its files.

    Raises:
        UsageError: the folder is not empty.
        StorageError: it cannot be written.

    """
    with storage_errors(folder):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError(f"{folder} exists already: remove it, or choose another place with --output")
        return [_write(names, folder / path, file) for path, file in _templates()]


def _templates() -> Iterator[tuple[Path, Traversable]]:
    """Each template with its path in the plugin, where the package's folder is still ``package``."""
    pending = [(Path(), resources.files("runner.plugin_check") / "template")]
    while pending:
        path, folder = pending.pop()
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name, reverse=True):
            if entry.is_dir():
                pending.append((path / entry.name, entry))
            elif entry.name.endswith(SUFFIX):
                name = entry.name.removesuffix(SUFFIX)
                yield path / _RENAMED.get(name, name), entry


def _write(names: Names, path: Path, template: Traversable) -> Path:
    if path.parent.name == "package":
        path = path.parent.with_name(names.package) / path.name
    path.parent.mkdir(parents=True, exist_ok=True)
    fields = {"name": names.name, "package": names.package, "distribution": names.distribution}
    text = Template(template.read_text(encoding="utf-8")).substitute(fields, version=__version__)
    path.write_text(text, encoding="utf-8")
    return path
