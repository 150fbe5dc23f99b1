"""Components from elsewhere: the folder that holds one in its source, a pipeline or a model by itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePath, PurePosixPath
from typing import TYPE_CHECKING

from runner.manifest.schema import ModelSource, PartSource
from runner.manifest.sources import part_source
from runner.model.selection import CONFIG, INDEX, SingleFile

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from runner.api import Component
    from runner.manifest.schema import LoraSource, Source

ROOT = "."
# by the first word of a component's name, as diffusers names them
_CONFIGS = {
    "tokenizer": "tokenizer_config.json",
    "scheduler": "scheduler_config.json",
    "feature": "preprocessor_config.json",
    "image": "preprocessor_config.json",
}


def source_of(model: ModelSource, component: Component) -> Source:
    """Where a component is loaded from: a source that ``[model.components]`` names, or the model.

    Where only its config is read, a single file of weights is not needed.
    """
    part = part_source(model, component.name)
    return model if part is None or (part.file and component.config_only) else part


def file_of(source: Source) -> str | None:
    """The single file that a source of a component is; None for a folder."""
    return source.file if isinstance(source, PartSource) else None


def lora_file(source: LoraSource, name: str) -> SingleFile:
    """The file of an adapter as a component, with the folder that it has in its source."""
    path = PurePosixPath(source.file or PurePath(source.source).name)
    return SingleFile(f"lora '{name}'", "", folder=str(path.parent), file=path.name)


def located(source: Source, components: Sequence[Component], names: Collection[str]) -> list[Component]:
    """The components with the folders that they have in this source, whose files are ``names``.

    A part from elsewhere lies in the folder of its name in a pipeline, or where the root holds no model; else
    in the root. A single file lies where the source says.
    """
    if not isinstance(source, PartSource):
        return list(components)
    if source.file:
        return [replace(c, folder=PurePosixPath(source.file).parent.as_posix()) for c in components]
    return [replace(c, folder=source.subfolder or _folder_of(source.component, names)) for c in components]


def located_on_disk(source: Source, folder: Path, components: Sequence[Component]) -> list[Component]:
    """The components with the folders that they have in a folder with all files of the source."""
    inner = source.component if isinstance(source, PartSource) else ""
    there = (*folder.glob("*"), *folder.glob(f"{inner}/*")) if inner else ()
    return located(source, components, [path.relative_to(folder).as_posix() for path in there])


def _folder_of(component: str, names: Collection[str]) -> str:
    has_folder = any(name.startswith(f"{component}/") for name in names)
    return component if has_folder and (INDEX in names or CONFIG not in names) else ROOT


def config_name(part: PartSource) -> str:
    """The file that names the class of a part."""
    return _CONFIGS.get(part.component.partition("_")[0], CONFIG)
