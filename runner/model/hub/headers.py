"""Describes hub models that are not on this machine from their headers and configs, without weights."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.errors import ModelError, RunnerError
from runner.files.header import Header
from runner.model.hub import snapshots
from runner.model.hub.contents import content_of, contents
from runner.model.hub.errors import explained, title
from runner.model.hub.listing import current
from runner.model.hub.needed import selections
from runner.model.parts import located
from runner.model.selection import CONFIG, GGUF, INDEX, WEIGHTS, path_of
from runner.model.shapes import ComponentShapes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runner.api import Component
    from runner.manifest.schema import Source
    from runner.model.hub.contents import Content
    from runner.model.selection import Selection

CONFIGS = (CONFIG, "scheduler_config.json")  # a tokenizer's class is in the model's index


def describe(source: Source, components: Sequence[Component]) -> dict[str, ComponentShapes]:
    """Shapes of the components of a hub model, by component name.

    Files in the hub's cache and headers in runner's are not requested again. If the hub cannot be reached,
    its last listing of the revision is used.

    Raises:
        ModelError: the model is missing, gated, damaged or unreachable, or lacks files of the components.

    """
    folder = snapshots.cached(source, components)
    if folder is not None:
        return {files.component.name: files.shapes for files in snapshots.opened(source, folder, components)}
    try:
        listing = current(source)
        components = located(source, components, listing.sizes)
        chosen = selections(source, components, listing)
        configs = {path_of(c, name) for c in components for name in CONFIGS}
        needed = {name for selection in chosen.values() for name in selection.names}
        names = sorted(name for name in needed if name.endswith((WEIGHTS, GGUF)) or name in configs)
        found = contents(source, listing, names)
    except RunnerError:
        raise
    except Exception as error:
        raise explained(source, error, snapshots.lacking(source, components)) from error
    return {c.name: _shapes(c, chosen[c.name], found) for c in components}


def header_of(source: Source, component: Component) -> Header:
    """The header of a single file on the snapshots.

    Raises:
        ModelError: it is missing, gated, damaged or unreachable.

    """
    try:
        listing = current(source)
        (name,) = selections(source, [component], listing)[component.name].names
        found = content_of(source, listing, name)
    except RunnerError:
        raise
    except Exception as error:
        raise explained(source, error) from error
    assert isinstance(found, Header), name  # noqa: S101 - the name ends with .safetensors
    return found


def commit_of(source: Source) -> str | None:
    """The commit of the revision, as the hub reports or last reported it; None if unknown."""
    try:
        return current(source).commit
    except Exception:  # reported when more of the model is needed
        return None


def model_index(source: Source) -> dict[str, Any]:
    """A hub model's ``model_index.json``, from the hub's cache if it is there.

    Raises:
        ModelError: the model is missing, gated or unreachable, or has no such file.

    """
    from huggingface_hub import try_to_load_from_cache

    try:
        local = try_to_load_from_cache(source.source, INDEX, revision=source.revision)
        if isinstance(local, str):
            with suppress(ValueError, OSError):
                return dict(json.loads(Path(local).read_bytes()))
        listing = current(source)
        found = content_of(source, listing, INDEX) if INDEX in listing.sizes else None
    except RunnerError:
        raise
    except Exception as error:
        raise explained(source, error) from error
    if not isinstance(found, dict):
        raise ModelError(f"{title(source)} has no {INDEX}; is it in diffusers layout?")
    return dict(found)


def tables_of(
    source: Source, components: Sequence[Component], name: str = CONFIG
) -> dict[str, Mapping[str, Any]]:
    """A JSON file of a hub model's components that have it, by component.

    Raises:
        ModelError: the model is missing, gated, damaged or unreachable.

    """
    try:
        listing = current(source)
        paths = {c.name: path_of(c, name) for c in located(source, components, listing.sizes)}
        found = contents(source, listing, [path for path in paths.values() if path in listing.sizes])
    except RunnerError:
        raise
    except Exception as error:
        raise explained(source, error) from error
    tables = {name: found.get(path) for name, path in paths.items()}
    return {name: table for name, table in tables.items() if isinstance(table, dict)}


def _shapes(component: Component, chosen: Selection, found: Mapping[str, Content]) -> ComponentShapes:
    contents = [found[name] for name in chosen.names if name.endswith((WEIGHTS, GGUF))]
    headers = [content for content in contents if isinstance(content, Header)]
    tensors = {name: info for header in headers for name, info in header.tensors.items()}
    metadata = {key: value for header in headers for key, value in header.metadata.items()}
    tables = {name: found.get(path_of(component, name)) for name in CONFIGS}
    configs = {name: table for name, table in tables.items() if isinstance(table, dict)}
    config = configs.pop(CONFIG, {})
    made = ComponentShapes(component, tensors, config, chosen.names, configs, chosen.variant, metadata)
    return made.read([header.tensors for header in headers], None)
