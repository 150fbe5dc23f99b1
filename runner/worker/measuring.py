"""Calls the functions by which plugins measure activations."""

from __future__ import annotations

import sys
import traceback
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from runner.api import Activations
from runner.errors import in_words
from runner.events import Measured
from runner.manifest.params import validate
from runner.pipeline.for_model import params_model
from runner.plugins import load_object
from runner.redact import redact

if TYPE_CHECKING:
    from runner.plan.measured import Measurement, StageParameters


def measure(measurement: Measurement) -> Measured:
    """The activations of one size, or why they are not known."""
    try:
        upstream = {name: _instance(one) for name, one in measurement.upstream.items()}
        sizes = replace(measurement.sizes, upstream=upstream)
        function = load_object(measurement.measure.function)
        result = function(_instance(measurement.params), sizes)
    except Exception as error:
        sys.stderr.write(redact(traceback.format_exc()))
        return Measured(error=in_words(error))
    if not isinstance(result, Activations):
        return Measured(error=f"{measurement.measure.function} returned {result!r}, and not Activations")
    return Measured(activations=asdict(result))


def _instance(parameters: StageParameters) -> Any:
    model = params_model(parameters.stage, parameters.facts)
    return None if model is None else validate(model, parameters.raw)
