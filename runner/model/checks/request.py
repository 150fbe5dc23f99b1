"""Questions about a component that only its library can answer, and the answers that are kept.

A worker makes the component's class from headers and configs alone (:mod:`runner.worker.check`). That they
agree is remembered in runner's cache, by the content of all that was looked at; what does not is looked at
again.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path  # noqa: TC003 - cached_property of a pickled class
from typing import TYPE_CHECKING, Any

from runner.errors import StorageError
from runner.files.cache import cache_folder
from runner.files.storage import open_to_read, write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from runner.api import Component
    from runner.model.shapes import ComponentShapes

ENGINE, LIBRARIES = 1, ("torch", "diffusers", "transformers", "tokenizers", "safetensors")
FILE_LIMIT = 64 << 20  # bytes of a tokenizer's file that are hashed; they are a few MB


@dataclass(frozen=True)
class ComponentCheck:
    """One component to be looked at; it is sent to a worker."""

    shapes: ComponentShapes
    shown: str
    """How messages name the model."""
    folder: Path | None
    """The model's folder; None if it is not on this machine."""
    embeddings: int | None = None
    """Token ids that the encoder of a tokenizer takes."""

    @cached_property
    def digest(self) -> str:
        """A hash of all that the answer depends on."""
        shapes = self.shapes
        parts = {
            "engine": ENGINE,
            "versions": {name: _version(name) for name in LIBRARIES},
            "component": [shapes.component.cls, shapes.component.accepts],
            "config": shapes.config,
            "weights": {name: [info.dtype, info.shape] for name, info in shapes.tensors.items()},
            "files": self._hashes() if not shapes.tensors else {},
            "embeddings": self.embeddings,
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @property
    def is_known_to_agree(self) -> bool:
        return _place(self).exists()

    def keep(self) -> None:
        """Remember that all agrees."""
        with suppress(StorageError):  # without a cache it is looked at again
            write_atomically(_place(self), b"")

    def _hashes(self) -> dict[str, str]:
        """Of a tokenizer's files; their names alone where they are not here."""
        if self.folder is None:
            return dict.fromkeys(self.shapes.names, "")
        return {name: _sha256(self.folder / name) for name in self.shapes.names}


def checks_of(shapes: Iterable[ComponentShapes], shown: str, folder: Path | None) -> Iterator[ComponentCheck]:
    """The checks of one stage's components: of weights, and of tokenizers."""
    known = {one.component.name: one for one in shapes}
    for one in known.values():
        component = one.component
        if component.config_only or (not one.tensors and "scheduler_config.json" in one.other_configs):
            continue
        encoder = encoder_of(component, {name: other.component for name, other in known.items()})
        embeddings = vocabulary_size(known[encoder.name].config) if encoder else None
        yield ComponentCheck(one, shown, folder, embeddings)


def encoder_of(tokenizer: Component, components: Mapping[str, Component]) -> Component | None:
    """The component that takes a tokenizer's token ids: as declared, or as diffusers names them."""
    named = tokenizer.name.replace("tokenizer", "text_encoder")
    return components.get(tokenizer.encoder or (named if named != tokenizer.name else ""))


def vocabulary_size(config: Any) -> int | None:
    """The token ids that an encoder takes, by its config or by that of its text model."""
    for table in (config, config.get("text_config")):
        if isinstance(table, dict) and type(table.get("vocab_size")) is int:
            return int(table["vocab_size"])
    return None


def _place(check: ComponentCheck) -> Path:
    return cache_folder() / "agreed" / check.digest[:40]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _sha256(path: Path) -> str:
    try:
        with open_to_read(path) as file:
            return hashlib.sha256(file.read(FILE_LIMIT)).hexdigest()
    except OSError as error:
        return str(error.errno)
