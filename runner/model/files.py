"""Which files of a model folder belong to a component, and whether they are whole."""

from __future__ import annotations

import json
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from runner.errors import ModelError
from runner.header import Header, HeaderError, read_header
from runner.model.shapes import ComponentShapes
from runner.storage import open_to_read

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from runner.api import Component

KEPT = ("*.json", "*.txt", "*.model", "*.safetensors")
# variants (model.fp16.safetensors) and indices of other formats are never read
IGNORED = (
    "*/*.*.safetensors",
    "*/*.*.safetensors.index.json",
    "*/*.bin.index.json",
    "*/*.msgpack*",
)
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".msgpack", ".h5")
INDEX = "model_index.json"
CONFIG = "config.json"
OTHER_CONFIGS = ("scheduler_config.json", "tokenizer_config.json")
SHARD_INDEX = ".safetensors.index.json"
TABLE_LIMIT = 16 << 20  # bytes of a config or an index


def patterns(components: Iterable[Component]) -> list[str]:
    """Glob patterns, from the model's folder, of all that the components need."""
    found = [INDEX]
    for component in components:
        kinds = ("config.json",) if component.config_only else (*KEPT, *component.files)
        found += [f"{component.path}/{kind}" for kind in kinds]
    return list(dict.fromkeys(found))


def select(names: Iterable[str], component: Component) -> list[str]:
    """Those of a model's files (paths from its folder) that the component needs, sorted."""
    wanted = patterns([component])[1:]
    return sorted(
        name
        for name in names
        if PurePosixPath(name).parent == PurePosixPath(component.path)
        and any(fnmatch(name, pattern) for pattern in wanted)
        and not any(fnmatch(name, pattern) for pattern in IGNORED)
    )


@dataclass(frozen=True)
class ComponentFiles:
    """A component's files on disk, checked: every shard is there and is as long as its header says."""

    component: Component
    folder: Path
    names: tuple[str, ...]
    """Paths from the model's folder."""

    @cached_property
    def headers(self) -> Mapping[str, Header]:
        """Headers of the weight files, by path from the model's folder."""
        weights = [name for name in self.names if name.endswith(".safetensors")]
        return {name: _whole_header(self.folder / name) for name in weights}

    @cached_property
    def shapes(self) -> ComponentShapes:
        """The weights as the headers tell them, and the component's ``config.json`` if it has one.

        Raises:
            ModelError: the config is damaged.

        """
        tensors = {name: info for h in self.headers.values() for name, info in h.tensors.items()}
        configs = {
            name: _json_table(self.folder / self.component.path / name)
            for name in (CONFIG, *OTHER_CONFIGS)
            if f"{self.component.path}/{name}" in self.names
        }
        return ComponentShapes(self.component, tensors, configs.pop(CONFIG, {}), self.names, configs)


def open_component(model: Path, component: Component) -> ComponentFiles:
    """The component's files in a model folder.

    Raises:
        ModelError: something is missing, cut off, or there are pickled weights only.

    """
    folder = model / component.path
    try:
        names = [f"{component.path}/{entry.name}" for entry in folder.iterdir()]
    except OSError:
        raise ModelError(
            f"the model in {model} has no folder '{component.path}', which holds the component "
            f"'{component.name}': is it a diffusers folder, and complete?"
        ) from None
    chosen = select(names, component)
    if component.config_only and not chosen:
        raise ModelError(f"{folder / 'config.json'} is missing")
    if not component.config_only:
        _check_weights(folder, component, chosen, names)
    files = ComponentFiles(component, model, tuple(chosen))
    _ = files.headers  # read, and so checked
    return files


def read_config(model: Path, component: Component) -> dict[str, Any]:
    """The component's ``config.json``.

    Raises:
        ModelError: it is missing or is no JSON table.

    """
    return _json_table(model / component.path / "config.json")


def read_index(model: Path) -> dict[str, Any]:
    """The pipeline's ``model_index.json``; empty if the folder has none.

    Raises:
        ModelError: it is no JSON table.

    """
    return _json_table(model / INDEX) if (model / INDEX).is_file() else {}


def _check_weights(folder: Path, component: Component, chosen: list[str], names: list[str]) -> None:
    stored = {PurePosixPath(name).name for name in chosen}
    if not stored:
        raise ModelError(f"{folder} holds no file that '{component.name}' could be loaded from")
    for index in (name for name in stored if name.endswith(SHARD_INDEX)):
        shards = _json_table(folder / index).get("weight_map")
        if not isinstance(shards, dict) or not all(isinstance(s, str) for s in shards.values()):
            raise ModelError(f"{folder / index} is damaged: it has no weight_map; fetch it again")
        missing = sorted(set(shards.values()) - stored)
        if missing:
            raise ModelError(
                f"{folder} is incomplete: {index} names {missing[0]}, which is not there; fetch it again"
            )
    weights = any(name.endswith(".safetensors") for name in stored)
    pickles = sorted(name for name in names if name.endswith(PICKLES))
    if not weights and pickles:
        raise ModelError(
            f"{folder} holds pickled weights only ({PurePosixPath(pickles[0]).name}), which can run code "
            "when loaded; get the model as safetensors, or save it anew with safe_serialization=True"
        )
    if not weights and "config.json" in stored:
        raise ModelError(f"{folder} has a config.json and no weights (*.safetensors); fetch the model again")


def _whole_header(path: Path) -> Header:
    try:
        return read_header(path)
    except HeaderError as error:
        raise ModelError(f"{path} is damaged: {error}; delete it and fetch it again") from None
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from None


def _json_table(path: Path) -> dict[str, Any]:
    try:
        with open_to_read(path) as file:
            data = file.read(TABLE_LIMIT + 1)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from None
    if len(data) > TABLE_LIMIT:
        raise ModelError(f"{path} is damaged: no such table is longer than {TABLE_LIMIT} bytes")
    try:
        table = json.loads(data)
    except (ValueError, RecursionError):
        table = None
    if not isinstance(table, dict):
        raise ModelError(f"{path} is damaged: not a JSON table; fetch it again")
    return table
