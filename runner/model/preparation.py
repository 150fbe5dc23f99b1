"""Components that are written anew into the cache before they are loaded: quantised, or converted.

``quantize`` asks for the first. The second is for single files whose weights diffusers computes from those of
the file: in the cache they can be mapped and streamed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from runner.errors import ModelError
from runner.files.cache import cache_folder
from runner.machine.describe import versions
from runner.model.files import open_component
from runner.model.fingerprint import fingerprint
from runner.model.layouts import layout
from runner.model.parts import ROOT
from runner.model.quantised import GGUF, PACKAGES, TORCHAO, parts_of
from runner.model.selection import CONFIG
from runner.model.shapes import CONVERTED

if TYPE_CHECKING:
    from pathlib import Path

    from runner.api import Component
    from runner.model.files import ComponentFiles, ComponentPlace
    from runner.model.shapes import ComponentShapes

FOLDER_VERSION = 1
"""Raise it when the same weights are written otherwise."""
MOST_COMPUTED = 64 << 20  # bytes of computed weights that stay in memory rather than be written to the cache


@dataclass(frozen=True)
class Preparation:
    """A component to be written into a folder of the cache; it is sent to a worker."""

    component: Component
    place: ComponentPlace
    """Where its weights are."""
    scheme: str
    """Of :data:`~runner.model.quantised.SCHEMES`, or ``CONVERTED``."""
    dtype: str
    """The stage's, which the weights are cast to."""
    target: Path
    size: int
    """Bytes of the weights in the folder."""

    @property
    def prepared(self) -> Component:
        """The component as it is declared for the folder."""
        return replace(self.component, folder=ROOT)

    @property
    def is_done(self) -> bool:
        """Whether the folder is complete: its config is written last, and files may be gone since."""
        if not (self.target / CONFIG).is_file():
            return False
        try:
            _ = open_component(self.target, self.prepared).shapes
        except ModelError:
            return False
        return True


def preparation(
    shapes: ComponentShapes, files: ComponentFiles, place: ComponentPlace, dtype: str
) -> Preparation:
    """The preparation of a component whose files are here; its folder depends on their content.

    ``shapes`` are those that it will have.
    """
    component = shapes.component
    ingredients = [
        FOLDER_VERSION,
        component.cls,
        fingerprint([files]),
        shapes.prepared,
        dtype,
        versions([PACKAGES[TORCHAO], "diffusers"]),
    ]
    digest = hashlib.sha256(json.dumps(ingredients).encode()).hexdigest()[:40]
    target = cache_folder() / "prepared" / digest
    return Preparation(component, place, shapes.prepared, dtype, target, shapes.stored_bytes)


def prepared_shapes(shapes: ComponentShapes, scheme: str | None, dtype: str) -> ComponentShapes:
    """The shapes that a component will be loaded with: its own, unless it is quantised or converted before.

    They are its own too where it has no layer that would be quantised.

    Raises:
        ModelError: it is quantised already, or its class cannot be.

    """
    if scheme is None:
        computed = sum(shapes.stored_of(name) for name in shapes.computed)
        ggml = shapes.quantisation is not None and shapes.quantisation.method == GGUF
        if computed <= MOST_COMPUTED or ggml:  # GGML's formats are in no other file
            return shapes
    elif shapes.quantisation is not None:
        raise ModelError(
            f"component '{shapes.component.name}' is quantised already ({shapes.quantisation}): leave it out "
            "of `quantize`"
        )
    request = {
        "class": shapes.component.cls,
        "config": dict(shapes.config),
        "prepare": scheme,
        "dtype": dtype,
    }
    found = layout(request, f"component '{shapes.component.name}' cannot be {_done(scheme)}")
    if scheme is not None and not parts_of(found.tensors)[0]:
        return shapes
    return replace(shapes, tensors=found.tensors, computed=frozenset(), prepared=scheme or CONVERTED)


def _done(scheme: str | None) -> str:
    return f"quantised to {scheme}" if scheme else CONVERTED
