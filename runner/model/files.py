"""Opens the files of a component in a model folder, and checks that they are complete."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from runner.errors import ModelError
from runner.files.header import Header, HeaderError, UnreadDtypeError, read_header
from runner.files.storage import LFS_POINTER, is_lfs_pointer, open_to_read
from runner.model.selection import CONFIG, INDEX, WEIGHTS, path_of, select
from runner.model.shapes import ComponentShapes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from runner.api import Component

OTHER_CONFIGS = ("scheduler_config.json", "tokenizer_config.json")
TABLE_LIMIT = 16 << 20  # bytes of a JSON config or index
POINTER_LIMIT = 1024  # bytes; the longest pointer of git-lfs


@dataclass(frozen=True)
class ComponentFiles:
    """A component's files on disk: every shard exists and is as long as its header says."""

    component: Component
    folder: Path
    names: tuple[str, ...]
    """Paths relative to the model's folder."""
    variant: str | None = None
    """The variant of the weights; None for plain files."""
    index: str | None = None
    """The name of the index that lists the shards."""
    declared: str = ""
    """The folder of its declaration, by which keys name the files; empty if that is where they are."""

    @property
    def keyed(self) -> list[tuple[str, Path]]:
        """The files as they are named in keys, which is the same wherever they are."""
        keyed = replace(self.component, folder=self.declared or self.component.folder)
        return [(path_of(keyed, PurePosixPath(name).name), self.folder / name) for name in self.names]

    @property
    def own_folder(self) -> Path:
        """The component's folder inside the model's."""
        return self.folder / self.component.path

    @cached_property
    def headers(self) -> Mapping[str, Header]:
        """Headers of the weight files, by path relative to the model's folder."""
        weights = [name for name in self.names if name.endswith(WEIGHTS)]
        return {name: _whole_header(self.folder / name) for name in weights}

    @cached_property
    def shapes(self) -> ComponentShapes:
        """Names, dtypes and shapes of the weights, and the component's configs.

        Raises:
            ModelError: the config is damaged.

        """
        tensors = {name: info for h in self.headers.values() for name, info in h.tensors.items()}
        configs = {
            name: read_table(self.own_folder / name)
            for name in (CONFIG, *OTHER_CONFIGS)
            if path_of(self.component, name) in self.names
        }
        config = configs.pop(CONFIG, {})
        return ComponentShapes(self.component, tensors, config, self.names, configs, self.variant)


@dataclass(frozen=True)
class Folder:
    """The files of a folder on this machine: the ``Contents`` of a selection."""

    path: Path

    @property
    def title(self) -> str:
        return str(self.path)

    def table(self, name: str) -> dict[str, Any]:
        return read_table(self.path / name)

    def header(self, name: str) -> Header:
        return _whole_header(self.path / name)


def open_component(model: Path, component: Component, variant: str | None = None) -> ComponentFiles:
    """The component's files in a model folder; those of the variant, if it has weights of it.

    Raises:
        ModelError: a file is missing or cut off, or all weights are pickled.

    """
    folder = model / component.path
    try:
        names = [path_of(component, entry.name) for entry in folder.iterdir()]
    except OSError:
        raise ModelError(
            f"the model in {model} has no folder '{component.path}', which holds the component "
            f"'{component.name}': is it a diffusers folder, and complete?"
        ) from None
    chosen = select(names, component, Folder(folder), variant)
    if component.config_only and not chosen.names:
        raise ModelError(f"{folder / 'config.json'} is missing")
    files = ComponentFiles(component, model, chosen.names, chosen.variant, chosen.index)
    for name in files.names:
        _refuse_pointer(model / name)
    _ = files.headers  # reads and checks them
    return files


@dataclass(frozen=True)
class ComponentPlace:
    """Where a component's files are on this machine; it is sent to workers."""

    component: Component
    """Its folder is the one that it has in ``folder``."""
    folder: Path
    """Of the model that it is from."""
    variant: str | None

    @property
    def has_config(self) -> bool:
        return (self.folder / self.component.path / CONFIG).is_file()

    def open(self) -> ComponentFiles:
        """Its files; raises as :func:`open_component`."""
        return open_component(self.folder, self.component, self.variant)

    def config(self) -> dict[str, Any]:
        """Its ``config.json``.

        Raises:
            ModelError: it is missing or not a JSON object.

        """
        return read_table(self.folder / self.component.path / CONFIG)


def read_index(model: Path) -> dict[str, Any]:
    """The pipeline's ``model_index.json``; empty if the folder has none.

    Raises:
        ModelError: it is not a JSON object.

    """
    return read_table(model / INDEX) if (model / INDEX).is_file() else {}


def read_table(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        ModelError: it is missing or not a JSON object.

    """
    data = _start(path, TABLE_LIMIT + 1)
    if len(data) > TABLE_LIMIT:
        raise ModelError(f"{path} is damaged: it is longer than {TABLE_LIMIT} bytes")
    try:
        table = json.loads(data)
    except (ValueError, RecursionError):
        table = None
    if not isinstance(table, dict):
        raise ModelError(f"{path} is damaged: not a JSON table; fetch it again")
    return table


def _whole_header(path: Path) -> Header:
    try:
        return read_header(path)
    except UnreadDtypeError as error:
        raise ModelError(f"{path} cannot be loaded: {error}") from None
    except HeaderError as error:
        _refuse_pointer(path)
        raise ModelError(f"{path} is damaged: {error}; delete it and fetch it again") from None
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from None


def _start(path: Path, size: int) -> bytes:
    """The first ``size`` bytes of a file.

    Raises:
        ModelError: it cannot be read, or is a git-lfs pointer.

    """
    try:
        with open_to_read(path) as file:
            data = file.read(size)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from None
    if is_lfs_pointer(data):
        raise ModelError(
            f"{path} is a git-lfs pointer, not the file itself: run `git lfs pull` in {path.parent}"
        )
    return data


def _refuse_pointer(path: Path) -> None:
    """Raise a ModelError for a git-lfs pointer or an empty JSON file."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from None
    if size <= POINTER_LIMIT:
        _start(path, len(LFS_POINTER))
    if not size and path.suffix == ".json":
        raise ModelError(f"{path} is damaged: it is empty; fetch it again")
