"""The files of a repository that components need."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from runner.errors import ModelError
from runner.manifest.problems import did_you_mean
from runner.manifest.schema import LoraSource, PartSource
from runner.model.hub.contents import RemoteFolder
from runner.model.hub.errors import title
from runner.model.parts import ROOT, file_of, located
from runner.model.selection import INDEX, Selection, files_of, select, variants

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from runner.api import Component
    from runner.manifest.schema import Source
    from runner.model.hub.listing import Listing
    from runner.model.selection import Contents

SHOWN = 5  # files in a message


def needed(source: Source, components: Sequence[Component], repository: Listing) -> list[str]:
    """The files of a repository that the components need; reads indexes and headers from the hub.

    Raises:
        ModelError: a component has no weights, only pickled ones, or several sets without an index.
        Exception: errors of the hub's client.

    """
    return names_of(selections(source, components, repository), repository.sizes)


def selections(source: Source, components: Sequence[Component], repository: Listing) -> dict[str, Selection]:
    """The files of each component, by its name; raises as :func:`needed`."""
    return select_each(source, components, repository.sizes, lambda c: RemoteFolder(source, repository, c))


def select_each(
    source: Source,
    components: Sequence[Component],
    names: Collection[str],
    contents: Callable[[Component], Contents],
) -> dict[str, Selection]:
    """The files of each component among those of a repository, by its name; raises ModelError."""
    check_variant(source, names)
    if file := file_of(source):
        if file not in names:
            raise ModelError(f"{title(source)} has no file '{file}'{_similar(file, names)}")
        return {c.name: Selection((file,)) for c in components}
    components = located(source, components, names)
    for component in components:
        _check_presence(source, component, names)
    return {c.name: select(names, c, contents(c), source.variant) for c in components}


def names_of(chosen: Mapping[str, Selection], names: Collection[str]) -> list[str]:
    """All selected files, and the pipeline's index, sorted."""
    of_components = {name for selection in chosen.values() for name in selection.names}
    return sorted(of_components | ({INDEX} & set(names)))


def check_variant(source: Source, names: Collection[str]) -> None:
    """Check that at least one of a model's folders has the requested variant.

    Folders without it are loaded from their plain files, as by diffusers; so are parts from elsewhere.

    Raises:
        ModelError: no folder has it.

    """
    found = variants(names)
    if source.variant not in (None, *found) and not isinstance(source, PartSource):
        known = f"there are: {', '.join(found)}" if found else "it has only plain files"
        raise ModelError(f"{title(source)} has no files of variant '{source.variant}' ({known})")


def _similar(file: str, names: Collection[str]) -> str:
    """The files of the same kind, for a message."""
    suffix = PurePosixPath(file).suffix
    there = sorted(name for name in names if name.endswith(suffix))
    return did_you_mean(file, there) or (f": there are {', '.join(there[:SHOWN])}" if there else "")


def _check_presence(source: Source, component: Component, names: Collection[str]) -> None:
    if files_of(component, names):
        return
    if isinstance(source, LoraSource):
        raise ModelError(f"{title(source)} has no file {source.file}")
    if isinstance(source, PartSource):
        where = "files in its root" if component.path == ROOT else f"folder '{component.path}'"
        raise ModelError(f"{title(source)} has no {where}: name the folder that holds it, as ID:SUBFOLDER")
    raise ModelError(
        f"{title(source)} has no files of the component '{component.name}'; is it in diffusers layout?"
    )
