"""Layouts of single files: what the tensors of a file become in a component's class.

A file of the original authors, or of another program, has other names, and fuses weights that the class has
apart. diffusers' own code converts it. It runs in a child process on meta tensors (no data), which shows
which weight is which part of the file: such parts are mapped, planned, streamed and read where they are.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from runner.errors import ModelError
from runner.files.cache import cache_value, cached_values
from runner.files.header import tensors_from_json, tensors_to_json
from runner.machine.describe import versions
from runner.machine.interpreter import environment, interpreter
from runner.model.checks.prediction import prediction_of
from runner.model.quantised import without_quantization

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.api import Component
    from runner.files.header import TensorInfo
    from runner.model.shapes import ComponentShapes

LAYOUT_VERSION = 3
"""Increment it when the layout of an unchanged file changes: cached ones are found again."""
CACHE = "layouts.json"
SECONDS = 300.0  # for the child, with imports
LIBRARIES = ("torch", "diffusers", "transformers", "gguf", "torchao")


@dataclass(frozen=True)
class Layout:
    """A component's weights, by their names in its class, with their extents in the file."""

    tensors: Mapping[str, TensorInfo]
    computed: frozenset[str] = field(default=frozenset())
    """Weights that are computed from the file's tensors when it is loaded: they are in memory, in no file.

    Their extents are of their size, and mean nothing.
    """

    @classmethod
    def of(cls, shapes: ComponentShapes) -> Layout:
        """That of a component whose shapes are in it."""
        return cls(shapes.tensors, shapes.computed)

    @classmethod
    def parsed(cls, answer: Mapping[str, Any]) -> Layout:
        """From what the child has sent, or the cache."""
        return cls(tensors_from_json(answer["tensors"]), frozenset(answer["computed"]))


def in_layout(shapes: ComponentShapes, layout: Layout | None = None) -> ComponentShapes:
    """A component whose shapes are those of a single file, as its class has them.

    Raises:
        ModelError: the file's tensors are not those of the class, or it cannot be converted.

    """
    # how the model's own weights are quantised is not how those of the file are
    config = without_quantization(shapes.config)
    prediction = prediction_of(shapes.component.name, shapes.tensors, shapes.metadata)
    shapes = replace(shapes, config=config, prediction=prediction)
    layout = layout or layout_of(shapes)
    component = _as_in_a_file(shapes)
    return replace(shapes, component=component, tensors=layout.tensors, computed=layout.computed)


def _as_in_a_file(shapes: ComponentShapes) -> Component:
    """The component: from a file that is no GGUF, diffusers keeps no weight in float32."""
    component = shapes.component
    if shapes.quantisation is not None or component.cls.partition(":")[0] != "diffusers":
        return component
    return replace(component, float32={})


def layout_of(shapes: ComponentShapes) -> Layout:
    """The layout of a file, from the cache or a child process; raises as :func:`in_layout`."""
    (name,) = shapes.names
    return layout(
        {
            "class": shapes.component.cls,
            "config": dict(shapes.config),
            "tensors": tensors_to_json(shapes.tensors),
        },
        f"component '{shapes.component.name}': {name} cannot be loaded",
    )


def layout(request: Mapping[str, Any], failure: str) -> Layout:
    """The layout that :mod:`runner.worker.layout` answers a request with; raises as :func:`answer`."""
    return Layout.parsed(answer(request, failure))


def answer(request: Mapping[str, Any], failure: str) -> Mapping[str, Any]:
    """The answer of :mod:`runner.worker.layout`, from the cache or a child process.

    Raises:
        ModelError: there is none; the message begins with ``failure``.

    """
    found = cached_values(CACHE).get(_digest(request))
    if not isinstance(found, dict):
        found = _ask(request)
        # answers to requests that will follow: another process would import the libraries again
        for more, its_answer in found.pop("also", ()):
            cache_value(CACHE, _digest({**more, "tensors": request["checkpoint"]}), its_answer)
        if "error" not in found:
            cache_value(CACHE, _digest(request), found)
    if "error" in found:
        raise ModelError(f"{failure}: {found['error']}")
    return found


def _digest(request: Mapping[str, Any]) -> str:
    known = [LAYOUT_VERSION, versions(LIBRARIES), request]
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:40]


def _ask(request: Mapping[str, Any]) -> dict[str, Any]:
    """The child's answer."""
    try:
        done = subprocess.run(
            interpreter("runner.worker.layout", str(os.getpid())),
            input=json.dumps(request).encode(),
            capture_output=True,
            env=environment(threads=1),
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"how its tensors are converted was not known after {SECONDS:g} s"}
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        sys.stderr.write(done.stderr.decode(errors="replace"))
        return {"error": f"the process that looks at it ended with exit code {done.returncode}"}
    return found
