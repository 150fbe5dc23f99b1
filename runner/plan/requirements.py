"""The memory that a stage needs with any placement: weights, activations, and the process around them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from runner.accelerator.names import kind_of
from runner.accelerator.overheads import NONE, Overheads
from runner.api import Activations, Sizes
from runner.machine import malloc
from runner.plan.item_activations import item_activations, known_activations, most, with_adapters
from runner.plan.measured import Measurement
from runner.units import MIB

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from runner.api import Component
    from runner.model.quantised import Quantisation
    from runner.model.shapes import ComponentShapes
    from runner.pipeline.binding import Pipeline
    from runner.pipeline.stage import PipelineStage


# RAM of a worker before it loads weights, in bytes: RssAnon on Linux, measured with torch 2.13,
# diffusers 0.42 and transformers 5
PROCESS = 160 * MIB  # Python, numpy, torch and the engine
LIBRARIES: Mapping[frozenset[str], int] = {frozenset({"diffusers", "transformers"}): 125 * MIB}
"""RAM that importing any library of a group takes, counted once for the group."""

IMPORTED: Mapping[str, int] = {"peft": 9 * MIB, "bitsandbytes": 38 * MIB}
"""The same of what diffusers imports where it is installed."""
ADAPTER_SETUP_RAM = 12 * MIB  # RAM of adding adapters, once, beside their weights

# freed memory that lingers with MALLOC_MMAP_THRESHOLD_ (12 MiB), and what the libraries keep from their
# first work on (6 to 30 MiB measured)
RUNNING = 20 * MIB

FRAGMENTATION = 0.06  # of the activations: what the caching allocator reserves beyond what is allocated


@dataclass(frozen=True)
class MemoryRequirements:
    """The memory that a stage needs, in bytes, with any placement."""

    shapes: tuple[ComponentShapes, ...]
    """Of the components with weights."""
    dtype: str
    item: Activations
    """The maximum of each figure over all items; of ``tokens`` the minimum."""
    each: Mapping[str, Activations]
    """Of each item, by its id."""
    has_formula: bool
    """Whether the activations are known: by the plugin's formula, or measured."""
    on_cpu: bool
    overheads: Overheads = NONE
    """What the accelerator's runtime takes."""
    retains_freed_memory: bool = False
    """Whether the worker retains freed RAM for later allocations."""
    beside: frozenset[str] = frozenset()
    """Libraries imported for other stages: all workers are forked from one server."""

    @property
    def items(self) -> int:
        return len(self.each)

    @property
    def parameters(self) -> int:
        """Number of parameters in all weights."""
        return sum(shapes.parameters for shapes in self.shapes)

    @property
    def activations(self) -> int:
        """Peak bytes of one item that computes."""
        return self.item.peak

    @property
    def quantisations(self) -> list[Quantisation]:
        """Of the components that are quantised."""
        return [shapes.quantisation for shapes in self.shapes if shapes.quantisation is not None]

    @property
    def dequantised(self) -> int:
        """The most bytes that a layer takes beside its activations to dequantise its weight."""
        return max((shapes.workspace for shapes in self.shapes), default=0)

    @property
    def suspended(self) -> int:
        """Bytes of one item that waits for weights."""
        held = self.item.peak if self.item.suspended is None else self.item.suspended
        return held + (malloc.retained_around_waiting(held) if self.retains_freed_memory else 0)

    @property
    def process(self) -> int:
        """RAM of the worker before it loads anything."""
        libraries = {_library(shapes.component) for shapes in self.shapes} | self.beside
        imported = sum(size for group, size in LIBRARIES.items() if group & libraries)
        if imported:
            imported += sum(size for name, size in IMPORTED.items() if is_installed(name))
        adapting = ADAPTER_SETUP_RAM if any(shapes.adapters for shapes in self.shapes) else 0
        return PROCESS + RUNNING + imported + adapting + self.overheads.ram

    @property
    def retained(self) -> int:
        """Freed RAM that is retained beside the activations."""
        small = self.activations if self.item.small is None else min(self.item.small, self.activations)
        return malloc.retained(small) if self.retains_freed_memory else 0

    @property
    def retaining(self) -> MemoryRequirements | None:
        """The same in a worker that retains freed RAM; None where that is not allowed.

        It is allowed on the CPU, if the formula of every item gives ``suspended``.
        """
        if not self.on_cpu or self.item.suspended is None:
            return None
        return replace(self, retains_freed_memory=True)

    @property
    def working(self) -> int:
        """Bytes beside the weights on the device that computes: RAM on the CPU, else VRAM."""
        if self.on_cpu:
            return self.activations + self.dequantised + self.retained
        beside = self.overheads.context + self.overheads.workspaces
        return beside + int((self.activations + self.dequantised) * (1 + FRAGMENTATION))

    @property
    def weights(self) -> int:
        return sum(shapes.loaded_bytes(self.dtype) for shapes in self.shapes)


@cache
def is_installed(package: str) -> bool:
    """Whether a package can be imported."""
    return find_spec(package) is not None


def requirements_of(
    pipeline: Pipeline,
    stage: PipelineStage,
    shapes: Iterable[ComponentShapes],
    device: str,
    overheads: Overheads = NONE,
    *,
    dtype: str | None = None,
    changed: Mapping[str, Any] | None = None,
) -> MemoryRequirements:
    """What the stage needs for the largest of its items.

    ``dtype`` and ``changed`` parameters take the place of those in the manifest.

    Raises:
        PluginError: the plugin's activation formula is missing, or fails.

    """
    known = list(shapes)
    sizes = _sizes(pipeline, stage, known, device, dtype)
    each, is_known = known_activations(item_activations(pipeline, stage, sizes, changed or {}))
    each = {item: with_adapters(one, known, sizes) for item, one in each.items()}
    return MemoryRequirements(
        shapes=tuple(s for s in known if s.tensors and not s.component.config_only),
        dtype=sizes.dtype,
        item=most(list(dict.fromkeys(each.values()))),
        each=each,
        has_formula=bool(stage.spec.memory) and is_known,
        on_cpu=device == "cpu",
        overheads=overheads,
        beside=_preloaded(pipeline),
    )


def measurements(
    pipeline: Pipeline, stage: PipelineStage, shapes: Iterable[ComponentShapes], device: str
) -> list[Measurement]:
    """The sizes of the stage that its plugin measures.

    Raises:
        PluginError: the plugin's activation formula is missing, or fails.

    """
    sizes = _sizes(pipeline, stage, shapes, device)
    found = item_activations(pipeline, stage, sizes, {})
    return [one for one in found.values() if isinstance(one, Measurement)]


def _sizes(
    pipeline: Pipeline,
    stage: PipelineStage,
    shapes: Iterable[ComponentShapes],
    device: str,
    dtype: str | None = None,
) -> Sizes:
    return Sizes(
        dtype=dtype or stage.table.dtype,
        device=kind_of(device),
        configs={s.component.name: s.settings for s in shapes if s.settings},
        save_dtype=stage.table.save_dtype,
        model=stage.facts,
        dtypes=pipeline.dtypes_elsewhere(stage),
    )


def _preloaded(pipeline: Pipeline) -> frozenset[str]:
    stages = [stage for stage in pipeline.stages if stage.spec.preload]
    return frozenset(_library(component) for stage in stages for component in stage.components)


def _library(component: Component) -> str:
    return component.cls.partition(":")[0].partition(".")[0]
