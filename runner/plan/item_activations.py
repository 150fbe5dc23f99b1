"""The activations of each item at a stage: by the plugin's formula, or measured."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Any

from runner.api import Activations, Measure, Sizes
from runner.errors import PluginError
from runner.pipeline.params import instance, raw_params
from runner.plan.measured import Measurement, measured
from runner.plan.measurement import measurement
from runner.plugins import load_object

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from runner.model.shapes import ComponentShapes
    from runner.pipeline.binding import Pipeline
    from runner.pipeline.stage import PipelineStage

NO_ACTIVATIONS = Activations(0)
SMALL = 16 << 20  # bytes; equal to runner.api.live_bytes.SMALL, which imports torch


def known_activations(found: Mapping[str, Activations | Measurement]) -> tuple[dict[str, Activations], bool]:
    """The activations of each item, measured where its plugin does that; and whether all are known."""
    results = measured(one for one in found.values() if isinstance(one, Measurement))
    each = {
        item: results.get(one.digest) if isinstance(one, Measurement) else one for item, one in found.items()
    }
    return {item: one or NO_ACTIVATIONS for item, one in each.items()}, None not in each.values()


def item_activations(
    pipeline: Pipeline, stage: PipelineStage, sizes: Sizes, changed: Mapping[str, Any]
) -> dict[str, Activations | Measurement]:
    """Those of each item, by its id. Equal parameters are validated, and the formula called, once."""
    if not stage.spec.memory:
        return {item.id: NO_ACTIVATIONS for item in pipeline.items}
    formula = load_object(stage.spec.memory)
    sources = [pipeline.stages[n] for n in sorted(stage.sources)]
    known: dict[str, Activations | Measurement] = {}
    found = {}
    for item in pipeline.items:
        raw = [raw_params(read, item.params[read.index]) for read in (stage, *sources)]
        # as text, since it tells 1, 1.0 and true apart, and values may be lists
        key = repr([(params.values, params.text_only, params.folders) for params in raw])
        if key not in known:
            try:
                upstream = {
                    source.index: instance(source, item.params[source.index], {}) for source in sources
                }
                by_input = {name: upstream[source.stage] for name, source in stage.wires.items()}
                params = instance(stage, item.params[stage.index], changed)
                result = formula(params, replace(sizes, upstream=by_input))
                if isinstance(result, Measure):
                    known[key] = measurement(pipeline, stage, item, result, sizes, changed)
                else:
                    known[key] = _checked(result)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # it may even call sys.exit
                raise PluginError(
                    f"the activation formula {stage.spec.memory} of {stage.spec.name} fails for item "
                    f"'{item.id}': {type(error).__name__}: {error}"
                ) from error
        found[item.id] = known[key]
    return found


def _checked(result: Activations | int) -> Activations:
    """The result of a formula; an int is the peak in bytes.

    Raises:
        ValueError: a size is negative, infinite or not a number.

    """
    activations = result if isinstance(result, Activations) else Activations(int(result))
    for name, value in vars(activations).items():
        if name in ("suspended", "small") and value is None:
            continue
        if not isinstance(value, int | float) or not 0 <= value < inf:
            raise ValueError(f"it returned {name} = {value!r}, which is no size")
    return activations


def with_adapters(found: Activations, shapes: Iterable[ComponentShapes], sizes: Sizes) -> Activations:
    """An item's activations including its adapters': peft adds an adapter's result to its layer's result.

    Meanwhile two more tensors of that size are alive: the adapter's product with its weight, and the sum.
    """
    width = max((report.width(one.component) for one in shapes for report in one.adapters), default=0)
    result = found.tokens * width * sizes.itemsize
    more = 2 * result
    small = found.small
    if small is not None and result <= SMALL:
        small += more
    return replace(found, peak=found.peak + more, small=small) if more else found


def most(found: list[Activations]) -> Activations:
    """The maximum of each figure; of ``tokens`` the minimum."""
    if not found:
        return NO_ACTIVATIONS
    suspended, small = [one.suspended for one in found], [one.small for one in found]
    return Activations(
        peak=max(one.peak for one in found),
        suspended=None if None in suspended else max(one or 0 for one in suspended),
        tokens=min(one.tokens for one in found),
        passes=max(one.passes for one in found),
        output_bytes=max(one.output_bytes for one in found),
        operations=max(one.operations for one in found),
        small=None if None in small else max(one or 0 for one in small),
    )
