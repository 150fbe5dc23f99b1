"""Components that ``quantize`` has quantised: what their files will hold, and where in the cache they are."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from runner.errors import ModelError
from runner.files.cache import cache_folder
from runner.machine.describe import versions
from runner.model.fingerprint import fingerprint
from runner.model.layouts import Layout, layout
from runner.model.parts import ROOT
from runner.model.quantised import PACKAGES, TORCHAO, Quantisation, parts_of
from runner.model.selection import CONFIG

if TYPE_CHECKING:
    from pathlib import Path

    from runner.api import Component
    from runner.model.files import ComponentFiles, ComponentPlace
    from runner.model.shapes import ComponentShapes

FOLDER_VERSION = 1
"""Raise it when the same weights are quantised otherwise."""


@dataclass(frozen=True)
class Quantising:
    """A component to be quantised into a folder of the cache; it is sent to a worker."""

    component: Component
    place: ComponentPlace
    """Where its weights are."""
    scheme: str
    """Of :data:`~runner.model.quantised.SCHEMES`."""
    dtype: str
    """The stage's, which the weights are cast to before they are quantised."""
    target: Path
    size: int
    """Bytes of the quantised weights."""

    @property
    def quantised(self) -> Component:
        """The component as it is declared for the folder."""
        return replace(self.component, folder=ROOT)

    @property
    def is_done(self) -> bool:
        """Whether the folder is complete: its config is written last."""
        return (self.target / CONFIG).is_file()


def quantising(
    shapes: ComponentShapes, files: ComponentFiles, place: ComponentPlace, scheme: str, dtype: str
) -> Quantising:
    """The quantised form of a component whose files are here; its folder depends on their content.

    ``shapes`` are the quantised ones.
    """
    component = shapes.component
    ingredients = [
        FOLDER_VERSION,
        component.cls,
        fingerprint([files]),
        scheme,
        dtype,
        versions([PACKAGES[TORCHAO]]),
    ]
    digest = hashlib.sha256(json.dumps(ingredients).encode()).hexdigest()[:40]
    target = cache_folder() / "quantised" / digest
    return Quantising(component, place, scheme, dtype, target, shapes.stored_bytes)


def quantised_shapes(shapes: ComponentShapes, scheme: str, dtype: str) -> ComponentShapes:
    """The shapes that a component will have.

    Raises:
        ModelError: it is quantised already, or its class cannot be.

    """
    if shapes.quantisation is not None:
        raise ModelError(
            f"component '{shapes.component.name}' is quantised already ({shapes.quantisation}): leave it out "
            "of `quantize`"
        )
    found: Layout = layout(
        {
            "class": shapes.component.cls,
            "config": dict(shapes.config),
            "quantize": scheme,
            "dtype": dtype,
        },
        f"component '{shapes.component.name}' cannot be quantised",
    )
    weights, kept = parts_of(found.tensors)
    quantisation = Quantisation(TORCHAO, (scheme,), weights, kept, dtype)
    return replace(shapes, tensors=found.tensors, planned=quantisation)
