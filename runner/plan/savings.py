"""What quantised weights save beside plain ones in the stage's dtype: memory, and time to read them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from runner.files.header import TensorInfo
from runner.model.quantised import ITEMSIZE, without_quantization
from runner.model.shapes import CONVERTED, IN_HEADERS
from runner.plan.candidates import placed_alike
from runner.units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.model.shapes import ComponentShapes
    from runner.plan.component_placement import PlacedComponent
    from runner.plan.stage_plan import StagePlan


@dataclass(frozen=True)
class Saving:
    """What quantising one component saves."""

    plain: int
    """Bytes of its weights in the stage's dtype."""
    quantised: int
    """Bytes of its weights as they are."""
    seconds: float
    """Seconds a pass saved in reading or moving it; 0 if it stays on the device."""
    peak: int
    """Bytes saved at the predicted peak of the computing device; negative where dequantising takes more."""


def saving_of(placed: PlacedComponent, plan: StagePlan) -> Saving | None:
    """What a component saves; None if it is not quantised."""
    shapes = placed.shapes
    if shapes.quantisation is None:
        return None
    plain = sum(info.elements for info in shapes.weights.values()) * ITEMSIZE[plan.need.dtype]
    quantised = shapes.loaded_bytes(plan.need.dtype)
    moved = sum(other.moved for other in plan.chosen.components)
    seconds = max(plan.pass_time.disk, plan.pass_time.bus)
    more = placed.moved * (plain / quantised - 1) if quantised else 0.0
    return Saving(plain, quantised, seconds * more / moved if moved else 0.0, _less_at_the_peak(shapes, plan))


def _less_at_the_peak(quantised: ComponentShapes, plan: StagePlan) -> int:
    """Bytes that the stage's peak is lower than with plain weights of one component in the same placement."""
    plain = tuple(_plain(s, plan.need.dtype) if s is quantised else s for s in plan.need.shapes)
    peaks = [
        placed_alike(replace(plan.need, shapes=shapes), plan.limits, plan.chosen)
        for shapes in (plain, plan.need.shapes)
    ]
    more, less = (peak.ram if peak.vram is None else peak.vram for peak in peaks)
    return more - less


def _plain(shapes: ComponentShapes, dtype: str) -> ComponentShapes:
    """A component whose weights are stored in the dtype that it computes in."""
    config = without_quantization(shapes.config)
    tensors = {
        name: TensorInfo(IN_HEADERS[dtype], info.shape, 0, info.elements * ITEMSIZE[dtype])
        for name, info in shapes.weights.items()
    }
    return replace(shapes, tensors=tensors, config=config, metadata={}, prepared="")


def notes_on_weights(placed: PlacedComponent, plan: StagePlan) -> Iterator[str]:
    """Sentences about a component whose weights are not loaded as its files have them."""
    shapes = placed.shapes
    if (saving := saving_of(placed, plan)) is not None:
        sizes = f"{format_size(saving.quantised)} of weights rather than {format_size(saving.plain)}"
        time = f", and about {saving.seconds:.2g} s less a pass" if saving.seconds else ""
        peak = f"{format_size(abs(saving.peak))} {'less' if saving.peak >= 0 else 'more'} at the peak"
        yield f"{shapes.quantisation}: {sizes}: {peak}{time}; pictures are not those of plain weights"
    if shapes.prepared:
        done = CONVERTED if shapes.prepared == CONVERTED else "quantised"
        size = format_size(shapes.stored_bytes)
        yield f"{done} once, into {size} of the cache, before the stage first runs"
    if shapes.computed:
        size = format_size(sum(map(shapes.stored_of, shapes.computed)))
        yield f"{len(shapes.computed)} of its weights ({size}) are converted when it is loaded"
