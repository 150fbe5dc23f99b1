"""Activations that are measured by running a plugin's code in a child process, and their cache."""

from __future__ import annotations

import hashlib
import json
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from runner.api import Activations
from runner.files.cache import cache_value, cached_values
from runner.machine.describe import versions

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from runner.api import Measure, ModelFacts, Sizes, Stage
    from runner.manifest.params import RawParams

MEASUREMENT_VERSION = 1
"""Raise it when the same function counts the same tensors otherwise: what is cached is then measured anew."""
LIBRARIES = ("torch", "diffusers", "transformers")
CACHE = "activations.json"


@dataclass(frozen=True)
class StageParameters:
    """An item's parameters at a stage, for another process: the plugin's model is made there."""

    stage: Stage
    facts: ModelFacts | None
    raw: RawParams


@dataclass(frozen=True)
class Measurement:
    """One size of a stage to be measured; it is pickled and sent to a child process."""

    stage: str
    """The stage's name in the manifest."""
    plugin: tuple[str, str]
    """The distribution that the stage is from, and its version."""
    measure: Measure
    params: StageParameters
    upstream: Mapping[str, StageParameters]
    """Of the stage that each input comes from, by input."""
    sizes: Sizes
    """Without ``upstream``."""

    @cached_property
    def digest(self) -> str:
        """A hash of everything that the result depends on."""
        sizes, model = self.sizes, self.sizes.model
        parts = {
            "engine": MEASUREMENT_VERSION,
            "versions": versions(LIBRARIES),
            "stage": [self.params.stage.name, self.params.stage.version, *self.plugin],
            "function": self.measure.function,
            "of": self.measure.of,
            "dtypes": [sizes.dtype, sizes.save_dtype, dict(sizes.dtypes)],
            "device": sizes.device,
            "configs": sizes.configs,
            "model": [model.configs, model.index, model.pipeline] if model else None,
            "here": sizes.folder is not None,
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:40]


class TransientFailure(str):
    """Why a size could not be measured, where another try may succeed: it is not cached."""

    __slots__ = ()


class Measurer(Protocol):
    """Measures sizes that are not in the cache."""

    def measure(self, todo: Sequence[Measurement]) -> Mapping[str, Activations | str]:
        """The activations of each, or why there are none, by digest."""

    def failed(self, measurement: Measurement, reason: str) -> None:
        """Tell the user that this size could not be measured, now or before."""


MEASURER: ContextVar[Measurer | None] = ContextVar("measurer", default=None)
"""Set by the command; without one, only the cache is read."""


def measured(wanted: Iterable[Measurement]) -> dict[str, Activations]:
    """The activations of each size, by its digest; those that could not be measured are left out."""
    todo = {one.digest: one for one in wanted}
    measurer = MEASURER.get()
    known = _cached(todo)
    missing = [one for digest, one in todo.items() if digest not in known]
    if missing and measurer is not None:
        found = measurer.measure(missing)
        for digest, result in found.items():
            if isinstance(result, TransientFailure):
                continue
            cache_value(CACHE, digest, result if isinstance(result, str) else asdict(result))
        known |= found
    for digest, result in known.items():
        if isinstance(result, str) and measurer is not None:
            measurer.failed(todo[digest], result)
    return {digest: result for digest, result in known.items() if isinstance(result, Activations)}


def _cached(digests: Iterable[str]) -> dict[str, Activations | str]:
    """What the cache has: activations, or why they could not be measured."""
    values = cached_values(CACHE)
    found: dict[str, Activations | str] = {}
    for digest in digests:
        value: Any = values.get(digest)
        if isinstance(value, str):
            found[digest] = value
        elif isinstance(value, dict):
            try:
                found[digest] = Activations(**value)
            except TypeError:  # of another version
                continue
    return found
