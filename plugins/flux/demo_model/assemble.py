"""Writes the trained parts as a checkpoint in the published FLUX layout."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import diffusers
import torch
from safetensors.torch import load_file, save_file

from . import sampler, transformer, vae
from .drawing import Settings

if TYPE_CHECKING:
    from .training import Place

MODEL_INDEX = {
    "_class_name": "FluxPipeline",
    "_diffusers_version": diffusers.__version__,
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "T5EncoderModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "T5TokenizerFast"],
    "transformer": ["diffusers", "FluxTransformer2DModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def assemble(place: Place, out: Path, weights: str = "straight.pt") -> None:
    """Write the checkpoint in bfloat16, to a temporary folder first, so that `out` is always complete."""
    aside, old = out.with_name(out.name + ".new"), out.with_name(out.name + ".old")
    shutil.rmtree(aside, ignore_errors=True)
    model = transformer.load(place, weights).to(torch.bfloat16)
    parts = {
        "transformer": model.net,
        "text_encoder": model.text.clip,
        "text_encoder_2": model.text.t5,
    }
    for name, part in {**parts, "vae": vae.load(place).to(torch.bfloat16)}.items():
        part.save_pretrained(aside / name)
    _name_as_published(aside / "text_encoder" / "model.safetensors")
    _forget_path(aside / "vae" / "config.json")
    for name in ("tokenizer", "tokenizer_2"):
        shutil.copytree(place.result(name), aside / name)
    sampler.scheduler().save_pretrained(aside / "scheduler")
    (aside / "model_index.json").write_text(json.dumps(MODEL_INDEX, indent=2) + "\n")
    write_card(aside, "Not scored yet.")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    aside.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def take_apart(checkpoint: Path, place: Place) -> None:
    """Convert a checkpoint to finished parts of a training, to continue with straightening.

    The auxiliary heads, which `assemble` leaves out, are initialised again; straightening does not use them.
    """
    place.work.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer", "tokenizer_2", "vae"):
        shutil.copytree(checkpoint / name, place.result(name), dirs_exist_ok=True)
    torch.manual_seed(place.seed)
    model = transformer.Model(place)
    parts = {"net": "transformer", "text.clip": "text_encoder", "text.t5": "text_encoder_2"}
    weights = {}
    for prefix, folder in parts.items():
        (file,) = (checkpoint / folder).glob("*.safetensors")
        for name, weight in load_file(file).items():
            weights[f"{prefix}.{name.removeprefix('text_model.')}"] = weight.float()
    model.load_state_dict(weights, strict=False)
    torch.save(model.state_dict(), place.result("distilled.pt"))


def _name_as_published(weights: Path) -> None:
    """Give CLIP's weights the names of FLUX.1: transformers 4 reads no others, 5 reads both."""
    named = {f"text_model.{name.removeprefix('text_model.')}": w for name, w in load_file(weights).items()}
    save_file(named, weights, {"format": "pt"})


def _forget_path(config: Path) -> None:
    """Remove the path that the part was loaded from: it is private, and differs between machines."""
    values = json.loads(config.read_text())
    values.pop("_name_or_path", None)
    config.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")


def write_card(out: Path, score: str) -> None:
    """Write the model card into the checkpoint's folder, with its score."""
    template = Path(__file__).with_name("model_card.md").read_text()
    filled = template.format(score=score, steps=Settings.steps, guidance=Settings.guidance)
    (out / "README.md").write_text(filled)
