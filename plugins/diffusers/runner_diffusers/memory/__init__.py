"""Activation formulas: what an item's size is; how much it takes is measured by running it on fake tensors.

Imported by the supervisor: no torch here.
"""

from __future__ import annotations

import re
from dataclasses import astuple
from typing import TYPE_CHECKING, Any

from runner.api import Measure
from runner_diffusers.media.inputs import files_of, wanted_of
from runner_diffusers.media.probe import probe
from runner_diffusers.pipelines.params import PipelineParams

if TYPE_CHECKING:
    from runner.api import Sizes

STAGES = "runner_diffusers.memory.stages"
WITHOUT_EFFECT = ("seed",)
"""Parameters that change no shape."""
TEXTS = re.compile(r"prompt|text|lyrics|tags")
"""Parameters whose words change no shape, only their number."""
TEXT_STEP = 64  # characters: texts of about the same length are measured once


def encode(params: PipelineParams, sizes: Sizes) -> Measure:
    """Measured on the item's own texts and files."""
    del sizes
    return Measure(f"{STAGES}:encode", size_of(params))


def denoise(params: PipelineParams, sizes: Sizes) -> Measure:
    """Measured on what the encode stage would hand on."""
    return Measure(f"{STAGES}:denoise", [size_of(params), _upstream(sizes, "encoded")])


def decode(params: PipelineParams, sizes: Sizes) -> Measure:
    """Measured on what the stages before would hand on."""
    upstream = [_upstream(sizes, name) for name in ("encoded", "denoised")]
    return Measure(f"{STAGES}:decode", [size_of(params), *upstream])


def _upstream(sizes: Sizes, name: str) -> Any:
    """The size of an input, by the parameters of this plugin's stage that makes it."""
    made_with = sizes.upstream.get(name)
    return size_of(made_with) if isinstance(made_with, PipelineParams) else None


def size_of(params: PipelineParams) -> dict[str, Any]:
    """What the shapes of an item's tensors depend on: not the words of its texts, nor what pictures show."""
    files = {one.name: one for one in params.file_keywords()}
    found: dict[str, Any] = {}
    for name, value in params:
        if name in files and value is not None:
            wanted = wanted_of(files[name], value)
            looks = [probe(path, wanted) for path in files_of(value)]
            found[name] = [astuple(look) for look in looks]
        elif name not in WITHOUT_EFFECT:
            is_text = isinstance(value, str) and TEXTS.search(name)
            found[name] = _rounded(value) if is_text else value
    return found


def _rounded(text: str) -> list[int]:
    """The length of a text, rounded up; empty ones have their own shapes in some pipelines."""
    return [-(-len(text) // TEXT_STEP) * TEXT_STEP]
