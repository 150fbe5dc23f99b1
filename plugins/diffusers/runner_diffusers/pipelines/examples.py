"""Example files for pipelines that start from a picture or a clip, for `runner new`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from runner.api import Recommended
from runner_diffusers import CLIP, MASK, PICTURE
from runner_diffusers.pipelines.components import pipeline_class
from runner_diffusers.pipelines.signature import keywords

if TYPE_CHECKING:
    from runner.api import ModelFacts
    from runner_diffusers.pipelines.source import SourceClass

OF_KEYWORD = {
    "image": PICTURE,
    "control_image": PICTURE,
    "mask_image": MASK,
    "control_mask": MASK,
    "video": CLIP,
    "control_video": CLIP,
}
STARTS_FROM_FILES = re.compile(r"Img2Img|Inpaint|Fill|Edit|Kontext|Control|ImageToVideo|VideoToVideo")
"""Pipelines that are for files, by their names; in most signatures even these have a default."""


def recommend(model: ModelFacts) -> Recommended:
    """An example for each file that the pipeline needs, or that it is for.

    Raises:
        UnsupportedModelError: the installed diffusers has no such pipeline.

    """
    return Recommended(shared=examples(pipeline_class(model)))


def examples(cls: SourceClass) -> dict[str, str]:
    """File names by keyword; empty for a pipeline that starts from text."""
    is_for_files = STARTS_FROM_FILES.search(cls.name) is not None
    files = [one for one in keywords(cls) if one.file and one.name in OF_KEYWORD]
    return {one.name: OF_KEYWORD[one.name] for one in files if one.required or is_for_files}
