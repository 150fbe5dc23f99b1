"""Items of tiny pipelines, as the plugin's stages take them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import tiny_models
from PIL import Image
from runner_diffusers.pipelines import params

from runner.api import ModelFacts, Sizes

if TYPE_CHECKING:
    from pathlib import Path


def facts_of(folder: Path, pipeline: str = "") -> ModelFacts:
    index = json.loads((folder / "model_index.json").read_text())
    files = {name: folder / name / "config.json" for name, entry in index.items() if isinstance(entry, list)}
    configs = {name: json.loads(file.read_text()) for name, file in files.items() if file.is_file()}
    return ModelFacts(configs, index=index, pipeline=pipeline or index["_class_name"])


@dataclass(frozen=True)
class Case:
    """A checkpoint, and an item's parameters at each stage."""

    folder: Path
    model: ModelFacts
    encode: Any
    denoise: Any
    decode: Any

    def sizes(self, dtype: str = "float32", folder: Path | None = None, **upstream: Any) -> Sizes:
        return Sizes(dtype=dtype, device="cpu", model=self.model, folder=folder, upstream=upstream)


def case_of(root: Path, name: str, **given: Any) -> Case:
    """An item of a tiny model; parameters that a stage does not have are left out.

    "picture" stands for the path of a picture.
    """
    picture = root / "picture.png"
    if not picture.exists():
        Image.new("RGB", (48, 40), "navy").save(picture)
    folder = tiny_models.checkpoint(name, root)
    model = facts_of(folder)
    values = {"prompt": "a fox in the snow", "height": 64, "width": 64, "num_frames": 9, "steps": 2}
    values |= {key: picture if value == "picture" else value for key, value in given.items()}
    made = []
    for stage in (params.encode, params.denoise, params.decode):
        fields = stage(model).model_fields
        made.append(stage(model)(**{key: value for key, value in values.items() if key in fields}))
    return Case(folder, model, *made)
