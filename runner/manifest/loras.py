"""The ``[[lora]]`` tables: names, sources, and the weights that items give them."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from runner.manifest.explain import shown
from runner.manifest.item_files import NotJsonError, strict_json
from runner.manifest.problems import did_you_mean
from runner.manifest.schema import LoraSource
from runner.manifest.sources import HUB_ID, LORA_WEIGHTS, hub_file, is_hub_id, is_revision, lora_name, path_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from runner.manifest.batch_item import BatchItem
    from runner.manifest.load import Manifest
    from runner.manifest.problems import Problems
    from runner.manifest.schema import LoraTable

SAFETENSORS = ".safetensors"
_ON_HUB = re.compile(rf"(?P<source>{HUB_ID.pattern})(@(?P<revision>[^:]*))?:(?P<file>.+)")


@dataclass(frozen=True)
class Lora:
    """An adapter of the manifest's model."""

    index: int
    """Its place in the manifest: adapters are added in this order."""
    name: str
    weight: float
    source: LoraSource


def source_of(table: LoraTable) -> LoraSource:
    """Where its file is: on this machine, or in a repository of the hub."""
    place = _ON_HUB.fullmatch(table.source) if is_hub_id(table.source) else None
    return LoraSource(**(place.groupdict() if place else {"source": table.source}))


def loras_of(manifest: Manifest, problems: Problems) -> tuple[Lora, ...]:
    """The adapters of a manifest; those that are not written correctly are reported and left out."""
    found: dict[str, Lora] = {}
    for n, table in enumerate(manifest.table.lora):
        name = lora_name(table.source, table.name)
        if wrong := _wrong_source(table.source, manifest.folder):
            problems.add(manifest.where("lora", n, "source"), wrong)
        elif name in found:
            where = manifest.where("lora", n, "name" if table.name else "source")
            problems.add(where, f"two [[lora]] have the name '{name}': give one of them another `name`")
        else:
            found[name] = Lora(n, name, table.weight, source_of(table))
    if found and manifest.table.model is None:
        message = "[[lora]] adapts the model that [model] names, and this manifest has no [model]"
        problems.add(manifest.where("lora", key=True), message)
    return tuple(found.values())


def weights_of(item: BatchItem, manifest: Manifest, problems: Problems) -> dict[str, float]:
    """The weights of an item's adapters, by name: its own, else those of the manifest."""
    weights = {lora_name(table.source, table.name): table.weight for table in manifest.table.lora}
    if not weights and manifest.problems:
        return {}  # there may be some that are not written correctly
    for name, weight in _given(item, problems).items():
        if name not in weights:
            known = f"; there are: {', '.join(weights)}" if weights else "; the manifest has no [[lora]]"
            hint = did_you_mean(name, weights) or known
            problems.add(
                item.where(LORA_WEIGHTS), f"'{LORA_WEIGHTS}' has no [[lora]] of the name '{name}'{hint}"
            )
        elif not _is_number(weight):
            problems.add(
                item.where(LORA_WEIGHTS), f"'{LORA_WEIGHTS}': '{name}' must be a number, not {shown(weight)}"
            )
        else:
            weights[name] = float(weight)
    return weights


def _is_number(weight: object) -> bool:
    """Whether it is a finite number; whole numbers from JSON may be larger than any."""
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        return False
    try:
        return math.isfinite(weight)
    except OverflowError:
        return False


def _given(item: BatchItem, problems: Problems) -> Mapping[str, Any]:
    given = item.fields.get(LORA_WEIGHTS, {})
    if item.text_only and isinstance(given, str):
        try:
            given = strict_json(given)
        except NotJsonError as error:
            problems.add(item.where(LORA_WEIGHTS), f"'{LORA_WEIGHTS}': {error}")
            return {}
        except (ValueError, RecursionError):
            given = None
    if isinstance(given, dict):
        return given
    form = '{"style": 0.5} (JSON)' if item.text_only else "{ style = 0.5 }"
    problems.add(
        item.where(LORA_WEIGHTS), f"'{LORA_WEIGHTS}' must be a table of weights by name, such as {form}"
    )
    return {}


def _wrong_source(source: str, base: Path) -> str:
    """An error message if the source of a ``[[lora]]`` is not written correctly, else empty."""
    if is_hub_id(source):
        return _wrong_on_hub(source, base)
    suffix = PurePosixPath(source).suffix.lower()
    if source.startswith("plugin:"):
        return "a LoRA cannot be in a plugin: name a file, or ID:FILE on the hub"
    if os.path.isdir(path_of(source, base)):  # noqa: PTH112 - never raises, whatever the name
        return f"'{source}' is a folder: name the {SAFETENSORS} file in it"
    return "" if suffix == SAFETENSORS else _no_safetensors(source)


def _wrong_on_hub(source: str, base: Path) -> str:
    if url := hub_file(source):
        return f'write "{url}"'
    if "://" in source:
        return f"a LoRA cannot be loaded from a URL: download it and give its path, ./FILE{SAFETENSORS}"
    if os.path.exists(base / source):  # noqa: PTH110
        return f'write "./{source}" for the one beside the manifest'
    place = _ON_HUB.fullmatch(source)
    if place is None:
        which = f'"{source}:FILE{SAFETENSORS}"' if HUB_ID.fullmatch(source) else f"ID:FILE{SAFETENSORS}"
        return f"'{source}' is no file: a file starts with ./, / or ~, and one on the hub is {which}"
    path = PurePosixPath(place["file"])
    if path.is_absolute() or ".." in path.parts or "\\" in place["file"]:
        return f"'{place['file']}' is not a file of the repository: write OWNER/NAME:FOLDER/FILE{SAFETENSORS}"
    if place["revision"] is not None and not is_revision(place["revision"]):
        return f"{place['revision']!r} is not a revision: give a branch, a tag or a commit"
    return "" if path.suffix.lower() == SAFETENSORS else _no_safetensors(place["file"])


def _no_safetensors(file: str) -> str:
    return (
        f"'{file}' is no {SAFETENSORS} file; other formats are pickles, which can run code when they are "
        "loaded: get it as safetensors"
    )
