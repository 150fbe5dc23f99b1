"""Requests to check a component against its library's class, and a cache of the checks that passed.

A worker builds the component's class from headers and configs alone (:mod:`runner.worker.check`). A check
that passed is cached by a hash of everything it depends on; one that failed is repeated.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path  # noqa: TC003 - cached_property of a pickled class
from typing import TYPE_CHECKING, Any

from runner.errors import StorageError
from runner.files.cache import cache_folder
from runner.files.storage import open_to_read, write_atomically
from runner.machine.describe import versions

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from runner.api import Component
    from runner.model.shapes import ComponentShapes

ENGINE, LIBRARIES = 1, ("torch", "diffusers", "transformers", "tokenizers", "safetensors", "bitsandbytes")
FILE_LIMIT = 64 << 20  # bytes of a tokenizer's file that are hashed; usual files have a few MB


@dataclass(frozen=True)
class ComponentCheck:
    """One component to be checked; it is pickled and sent to a worker."""

    shapes: ComponentShapes
    shown: str
    """The name of the model in messages."""
    folder: Path | None
    """The model's folder; None if it is not on this machine."""
    embeddings: int | None = None
    """For a tokenizer, the number of token ids that its encoder takes."""

    @cached_property
    def digest(self) -> str:
        """A hash of everything that the result depends on."""
        shapes = self.shapes
        parts = {
            "engine": ENGINE,
            "versions": versions(LIBRARIES),
            "component": [shapes.component.cls, shapes.component.accepts],
            "config": shapes.config,
            "weights": {name: [info.dtype, info.shape] for name, info in shapes.tensors.items()},
            "files": self._hashes() if not shapes.tensors else {},
            "embeddings": self.embeddings,
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @property
    def is_known_to_agree(self) -> bool:
        """Whether this check has passed before."""
        return _cache_file(self).exists()

    def keep(self) -> None:
        """Record in the cache that the check has passed."""
        with suppress(StorageError):  # without a cache it is repeated
            write_atomically(_cache_file(self), b"")

    def _hashes(self) -> dict[str, str]:
        """Hashes of a tokenizer's files; empty strings if they are not on this machine."""
        if self.folder is None:
            return dict.fromkeys(self.shapes.names, "")
        return {name: _sha256(self.folder / name) for name in self.shapes.names}


def checks_of(
    shapes: Iterable[ComponentShapes], models: Mapping[str, tuple[str, Path | None]]
) -> Iterator[ComponentCheck]:
    """The checks of one stage's components that have weights or are tokenizers.

    ``models`` are the models that they are from, by component: name for messages, and folder, if it is here.
    """
    known = {one.component.name: one for one in shapes}
    for one in known.values():
        component = one.component
        if component.config_only or (not one.tensors and "scheduler_config.json" in one.other_configs):
            continue
        encoder = encoder_of(component, {name: other.component for name, other in known.items()})
        embeddings = vocabulary_size(known[encoder.name].config) if encoder else None
        yield ComponentCheck(one, *models[component.name], embeddings)


def encoder_of(tokenizer: Component, components: Mapping[str, Component]) -> Component | None:
    """The component that takes a tokenizer's token ids: the declared one, else by diffusers' naming."""
    named = tokenizer.name.replace("tokenizer", "text_encoder")
    return components.get(tokenizer.encoder or (named if named != tokenizer.name else ""))


def vocabulary_size(config: Any) -> int | None:
    """The number of token ids that an encoder takes, from its config or that of its text model."""
    for table in (config, config.get("text_config")):
        if isinstance(table, dict) and type(table.get("vocab_size")) is int:
            return int(table["vocab_size"])
    return None


def _cache_file(check: ComponentCheck) -> Path:
    return cache_folder() / "agreed" / check.digest[:40]


def _sha256(path: Path) -> str:
    try:
        with open_to_read(path) as file:
            return hashlib.sha256(file.read(FILE_LIMIT)).hexdigest()
    except OSError as error:
        return str(error.errno)
