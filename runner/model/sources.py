"""Where models come from: a folder, a folder in a plugin's package, or a repository on the hub."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from runner.errors import ModelError
from runner.model import hub
from runner.model.files import ComponentFiles, open_component

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runner.api import Component
    from runner.manifest.schema import ModelSource
    from runner.plugins import Plugins

PLUGIN = "plugin:"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
REVISION = re.compile(r"\w[\w.+@/-]*")
FOLDER = re.compile(r"[./~\\]|[A-Za-z]:[/\\]")


@dataclass(frozen=True)
class Model:
    """A model on this machine."""

    source: str
    revision: str | None
    folder: Path

    def component(self, component: Component) -> ComponentFiles:
        """The component's files, checked.

        Raises:
            ModelError: they are missing, damaged or pickled.

        """
        return open_component(self.folder, component)

    def record(self) -> dict[str, str]:
        """What finds the same files again from anywhere and at any time, however the manifest named them.

        A hub model with its ``commit``, a packaged one, or the path of a folder.
        """
        if is_hub_id(self.source):
            return {"source": self.source, "commit": self.folder.name}  # the hub's cache: snapshots/COMMIT
        return {"source": self.source if self.source.startswith(PLUGIN) else str(self.folder)}


def is_hub_id(source: str) -> bool:
    return not source.startswith(PLUGIN) and FOLDER.match(source) is None


def check_source(source: ModelSource) -> str | None:
    """What is wrong with how a source is written, or None."""
    if is_hub_id(source.source):
        if not HUB_ID.fullmatch(source.source):
            return (
                f"'{source.source}' is no model source: a hub id is OWNER/NAME, a folder starts with "
                f"./, / or ~, a packaged model is plugin:NAME/FOLDER"
            )
        if source.revision is not None and not _is_revision(source.revision):
            return f"{source.revision!r} is no revision: it is a branch, a tag or a commit on the hub"
        return None
    if source.revision is not None:
        return "only a model on the hub has a revision"
    name, _, inner = source.source.removeprefix(PLUGIN).partition("/")
    packaged = source.source.startswith(PLUGIN)
    path = PurePosixPath(inner)
    if packaged and (not name or not inner or path.is_absolute() or ".." in path.parts):
        return f"'{source.source}' is no packaged model: write plugin:NAME/FOLDER"
    return None


def _is_revision(name: str) -> bool:
    """Whether git could have it as a name; the hub's client makes a path of it."""
    return bool(REVISION.fullmatch(name)) and ".." not in name


def find(source: ModelSource, base: Path, plugins: Plugins, components: Sequence[Component]) -> Model | None:
    """The model, if it is on this machine; None for a hub model that is not (wholly) here.

    ``base`` is the folder that relative folders start from.

    Raises:
        ModelError: the folder is not there.
        PluginError: the plugin that packages it is not there.

    """
    if is_hub_id(source.source):
        folder = hub.cached(source, components)
        return Model(source.source, source.revision, folder) if folder else None
    if source.source.startswith(PLUGIN):
        name, _, inner = source.source.removeprefix(PLUGIN).partition("/")
        plugin = plugins.get(name)
        folder = plugin.folder / inner
        missing = f"the plugin '{name}' (from {plugin.distribution}) packages no model '{inner}'"
    else:
        folder = Path(os.path.abspath(base / os.path.expanduser(source.source)))  # noqa: PTH100, PTH111
        missing = f"there is no model folder {folder}"
    if not os.path.isdir(folder):  # noqa: PTH112 - it raises nothing, whatever the name
        raise ModelError(f"{missing} (the manifest's source is '{source.source}')")
    return Model(source.source, None, folder)


def fetch(
    source: ModelSource,
    components: Sequence[Component],
    progress: Callable[[int, int], None],
) -> Model:
    """Download what the components need of a hub model.

    Raises:
        ModelError: it is missing, gated or cannot be had whole.
        StorageError: there is no room for it.

    """
    folder = hub.download(source, components, progress)
    return Model(source.source, source.revision, folder)
