"""What a stage needs whatever its placement: its weights, its activations, and the process around them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING, Any

from runner.api import Activations, Sizes
from runner.errors import PluginError
from runner.machine import malloc as heap
from runner.pipeline.params import instance
from runner.plugins import load_object

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from runner.api import Component
    from runner.model.shapes import ComponentShapes
    from runner.pipeline.binding import Pipeline
    from runner.pipeline.stage import PipelineStage

MIB = 1 << 20
# RssAnon of a worker before it loads weights, measured with torch 2.13, diffusers 0.42, transformers 5:
PROCESS = 160 * MIB  # Python, numpy, torch and the engine
LIBRARIES = 125 * MIB  # diffusers and transformers, where a component comes from one of them
# what lingers of freed memory with MALLOC_MMAP_THRESHOLD_ (12 MiB by the design's measurement), and what the
# libraries keep from their first work on (6 to 30 MiB measured)
RUNNING = 20 * MIB
# estimates until `doctor` has measured them on a card: the driver's share of host and device memory
CUDA_HOST = 700 * MIB
CUDA_CONTEXT = 560 * MIB
CUDA_WORKSPACES = 72 * MIB  # cuBLAS keeps 32 MiB on Hopper, 8 elsewhere; cuDNN's convolutions the rest
FRAGMENTATION = 0.06  # of the activations: what the caching allocator reserves beyond what is allocated
NOTHING = Activations(0)


@dataclass(frozen=True)
class MemoryRequirements:
    """Bytes and shapes; see the constants for what is counted in each."""

    shapes: tuple[ComponentShapes, ...]
    """Of the components that have weights."""
    dtype: str
    item: Activations
    """The most of everything over all items; the fewest tokens."""
    each: Mapping[str, Activations]
    """Of each item, by its id."""
    has_formula: bool
    on_cpu: bool
    retains_freed_memory: bool = False
    """Whether the worker keeps freed RAM for what comes next."""
    beside: frozenset[str] = frozenset()
    """Libraries that the worker has imported for other stages: on the CPU all come from one fork server."""

    @property
    def items(self) -> int:
        return len(self.each)

    @property
    def parameters(self) -> int:
        """Numbers of all weights."""
        return sum(shapes.parameters for shapes in self.shapes)

    @property
    def activations(self) -> int:
        """Of one item at work."""
        return self.item.peak

    @property
    def suspended(self) -> int:
        """Of one item that waits for its weights."""
        held = self.item.peak if self.item.suspended is None else self.item.suspended
        return held + (heap.around_waiting(held) if self.retains_freed_memory else 0)

    @property
    def process(self) -> int:
        """RAM of the worker before it loads anything."""
        modules = {_library(shapes.component) for shapes in self.shapes} | self.beside
        libraries = LIBRARIES if modules & {"diffusers", "transformers"} else 0
        return PROCESS + RUNNING + libraries + (0 if self.on_cpu else CUDA_HOST)

    @property
    def kept(self) -> int:
        """Freed RAM that is kept beside the activations."""
        return heap.kept(self.activations) if self.retains_freed_memory else 0

    @property
    def keeping(self) -> MemoryRequirements | None:
        """The same in a worker that keeps freed RAM; None where it must not: on what tells too little."""
        if not self.on_cpu or self.item.suspended is None:
            return None
        return replace(self, retains_freed_memory=True)

    @property
    def working(self) -> int:
        """Bytes beside the weights on the device that computes: RAM on the CPU, else VRAM."""
        if self.on_cpu:
            return self.activations + self.kept
        return CUDA_CONTEXT + CUDA_WORKSPACES + int(self.activations * (1 + FRAGMENTATION))

    @property
    def weights(self) -> int:
        return sum(shapes.loaded_bytes(self.dtype) for shapes in self.shapes)


def requirements_of(
    pipeline: Pipeline,
    stage: PipelineStage,
    shapes: Iterable[ComponentShapes],
    device: str,
    *,
    dtype: str | None = None,
    changed: Mapping[str, Any] | None = None,
) -> MemoryRequirements:
    """What the stage needs for the greediest of its items.

    ``dtype`` and ``changed`` parameters ask what it would need if the manifest said so.

    Raises:
        PluginError: the plugin's activation formula is not there, or fails.

    """
    known = list(shapes)
    on_cpu = device == "cpu"
    sizes = Sizes(
        dtype=dtype or stage.table.dtype,
        device="cpu" if on_cpu else "cuda",
        configs={s.component.name: s.config for s in known if s.config},
        save_dtype=stage.table.save_dtype,
    )
    each = _activations(pipeline, stage, sizes, changed or {})
    return MemoryRequirements(
        shapes=tuple(s for s in known if s.tensors and not s.component.config_only),
        dtype=sizes.dtype,
        item=_most(list(dict.fromkeys(each.values()))),
        each=each,
        has_formula=bool(stage.spec.memory),
        on_cpu=on_cpu,
        beside=_preloaded(pipeline) if on_cpu else frozenset(),
    )


def _preloaded(pipeline: Pipeline) -> frozenset[str]:
    specs = [stage.spec for stage in pipeline.stages if stage.spec.preload]
    return frozenset(_library(component) for spec in specs for component in spec.components)


def _library(component: Component) -> str:
    return component.cls.partition(":")[0].partition(".")[0]


def _activations(
    pipeline: Pipeline, stage: PipelineStage, sizes: Sizes, changed: Mapping[str, Any]
) -> dict[str, Activations]:
    if not stage.spec.memory:
        return {item.id: NOTHING for item in pipeline.items}
    formula = load_object(stage.spec.memory)
    found: dict[str, Activations] = {}
    same: dict[Activations, Activations] = {}  # ten thousand items are of a few kinds
    for item in pipeline.items:
        given = {n: instance(pipeline.stages[n], item.params[n], {}) for n in stage.sources}
        upstream = {name: given[source.stage] for name, source in stage.wires.items()}
        try:
            params = instance(stage, item.params[stage.index], changed)
            told = formula(params, replace(sizes, upstream=upstream))
            told = _checked(told if isinstance(told, Activations) else Activations(int(told)))
            found[item.id] = same.setdefault(told, told)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # it may even call sys.exit
            raise PluginError(
                f"the activation formula {stage.spec.memory} of {stage.spec.name} fails for item "
                f"'{item.id}': {type(error).__name__}: {error}"
            ) from error
    return found


def _checked(told: Activations) -> Activations:
    numbers = {name: value for name, value in vars(told).items() if (name, value) != ("suspended", None)}
    for name, value in numbers.items():
        if not isinstance(value, int | float) or not 0 <= value < inf:
            raise ValueError(f"it tells {name} = {value!r}, which is no size")
    return told


def _most(found: list[Activations]) -> Activations:
    if not found:
        return NOTHING
    suspended = [one.suspended for one in found]
    return Activations(
        peak=max(one.peak for one in found),
        suspended=None if None in suspended else max(one or 0 for one in suspended),
        tokens=min(one.tokens for one in found),
        passes=max(one.passes for one in found),
        output_bytes=max(one.output_bytes for one in found),
        operations=max(one.operations for one in found),
    )
