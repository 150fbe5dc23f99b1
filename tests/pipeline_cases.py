"""Calls of many pipelines on tiny checkpoints: as data, as a manifest, and what the pipelines themselves make."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import diffusers
import numpy as np
import torch
from PIL import Image
from runner_diffusers.pipelines.params import AFTER_ENCODING
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

PROMPT, NEGATIVE = "a red circle on a blue square", "a yellow star"
SEED = 7
STAGES = ("encode", "denoise", "decode")
OWN: Mapping[str, dict[str, Any]] = {"denoise": {"seed": SEED}, "decode": {"format": "safetensors"}}
"""Parameters of stages that are no keywords of the pipeline."""


@dataclass(frozen=True)
class Case:
    """A call of a pipeline. Keywords that end with .png are pictures, which :func:`write_pictures` writes."""

    checkpoint: str
    """Its name in :mod:`tiny_models`."""
    keywords: Mapping[str, Any] = field(default_factory=dict)
    pipeline: str | None = None
    """Another class than the checkpoint's index names."""

    def but(self, **keywords: Any) -> Case:
        """The same call with some other keywords."""
        return Case(self.checkpoint, {**self.keywords, **keywords}, self.pipeline)


def picture(checkpoint: str, pipeline: str | None = None, **keywords: Any) -> Case:
    size: dict[str, Any] = (
        {} if pipeline == "StableDiffusionXLImg2ImgPipeline" else {"height": 64, "width": 64}
    )
    return Case(checkpoint, {"prompt": PROMPT, "num_inference_steps": 4, **size, **keywords}, pipeline)


def clip(checkpoint: str, pipeline: str | None = None, **keywords: Any) -> Case:
    frames: dict[str, Any] = {} if "video" in keywords else {"num_frames": 9}
    basic = {"prompt": PROMPT, "height": 32, "width": 32, "num_inference_steps": 4, **frames}
    return Case(checkpoint, {**basic, "negative_prompt": NEGATIVE, **keywords}, pipeline)


SHORT: dict[str, Any] = {"max_sequence_length": 32}
FLUX: dict[str, Any] = {"guidance_scale": 3.5, **SHORT}
QWEN: dict[str, Any] = {"negative_prompt": NEGATIVE, "true_cfg_scale": 4.0, "max_sequence_length": 64}
KLEIN: dict[str, Any] = {
    "guidance_scale": 4.0,
    "max_sequence_length": 64,
    "text_encoder_out_layers": [1, 2, 3],
}
GUIDED: dict[str, Any] = {"negative_prompt": NEGATIVE, "guidance_scale": 5.0}
WAN: dict[str, Any] = {"guidance_scale": 4.0, "max_sequence_length": 16}
LTX: dict[str, Any] = {"guidance_scale": 3.0, "max_sequence_length": 16}
ONE, SMALL, MASK = "64.png", "32.png", "mask.png"

CASES: Mapping[str, Case] = {
    "sd15": picture("sd15", **GUIDED),
    "sdxl": picture("sdxl", guidance_rescale=0.5, **GUIDED),
    "sdxl_img2img": picture(
        "sdxl", "StableDiffusionXLImg2ImgPipeline", image=ONE, strength=0.6, num_inference_steps=5
    ),
    "sdxl_inpaint": picture(
        "sdxl", "StableDiffusionXLInpaintPipeline", image=ONE, mask_image=MASK, strength=0.9
    ),
    "sdxl_controlnet": picture(
        "sdxl_controlnet", image=ONE, guidance_scale=5.0, control_guidance_end=0.6
    ),
    "sd3": picture("sd3", **GUIDED, **SHORT),
    "sd3_img2img": picture(
        "sd3", "StableDiffusion3Img2ImgPipeline", image=ONE, strength=0.7, guidance_scale=5.0, **SHORT
    ),
    "qwen": picture("qwen", **QWEN),
    "qwen_img2img": picture("qwen", "QwenImageImg2ImgPipeline", image=ONE, strength=0.7, **QWEN),
    "zimage": picture(
        "zimage", negative_prompt=NEGATIVE, guidance_scale=4.0, cfg_truncation=0.6, max_sequence_length=128
    ),
    "klein": picture("klein", **KLEIN),
    "klein_edit": picture("klein", image=[ONE], **KLEIN),
    "chroma": picture("chroma", negative_prompt=NEGATIVE, guidance_scale=4.0, **SHORT),
    "pixart": picture("pixart", use_resolution_binning=False, **GUIDED, **SHORT),
    "auraflow": picture("auraflow", **GUIDED, **SHORT),
    "flux": picture("flux", **FLUX),
    "flux_img2img": picture("flux", "FluxImg2ImgPipeline", image=ONE, strength=0.6, **FLUX),
    "flux_inpaint": picture("flux", "FluxInpaintPipeline", image=ONE, mask_image=MASK, strength=0.8, **FLUX),
    "flux_fill": picture("flux_fill", image=ONE, mask_image=MASK, **FLUX),
    "kontext": picture("kontext", image=ONE, max_area=64 * 64, **FLUX),
    "wan21": clip("wan21", **WAN),
    "wan22": clip("wan22", guidance_scale_2=3.0, num_inference_steps=5, **WAN),
    "wan_i2v": clip("wan_i2v", image=SMALL, **WAN),
    "wan_ti2v": clip("wan_ti2v", image=SMALL, **WAN),
    "wan_v2v": clip(
        "wan21", "WanVideoToVideoPipeline", video=[SMALL] * 9, strength=0.7, num_inference_steps=5, **WAN
    ),
    "ltx": clip("ltx", **LTX),
    "ltx091": clip("ltx091", decode_timestep=0.05, decode_noise_scale=0.025, **LTX),
    "ltx_i2v": clip("ltx", "LTXImageToVideoPipeline", image=SMALL, **LTX),
    "cogvideox": clip(
        "cogvideox", height=16, width=16, num_frames=8, guidance_scale=5.0, use_dynamic_cfg=True,
        max_sequence_length=16,
    ),
    "hunyuan15": clip("hunyuan15", height=16, width=16),
}  # fmt: skip


def write_pictures(folder: Path) -> None:
    """Write the pictures that cases name: of random pixels, and a mask."""
    drawn = np.random.RandomState(0)
    for name, size in ((SMALL, 32), (ONE, 64)):
        pixels = drawn.randint(0, 255, (size, size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    mask = np.zeros((64, 64), np.uint8)
    mask[16:32, 16:] = 255
    Image.fromarray(mask).save(folder / MASK)


def reference(
    case: Case,
    checkpoint: Path,
    pictures: Path,
    dtype: torch.dtype,
    seed: int = SEED,
    scheduler: Any = None,
    loras: Mapping[Path, float] | None = None,
    **components: Any,
) -> list[torch.Tensor]:
    """What the unmodified pipeline makes: its first picture or clip, as numbers; ``components`` are from elsewhere.

    ``loras`` are the files of adapters, with their weights.

    Its weights are copied to where torch places tensors: kernels give other low bits for mapped ones.
    """
    named = case.pipeline or json.loads((checkpoint / "model_index.json").read_text())["_class_name"]
    pipeline = getattr(diffusers, named).from_pretrained(checkpoint, dtype=dtype, **components)
    pipeline.set_progress_bar_config(disable=True)
    if loras:
        for file in loras:
            pipeline.load_lora_weights(str(file), adapter_name=file.stem)
        pipeline.set_adapters([file.stem for file in loras], [*loras.values()])
    for component in pipeline.components.values():
        if isinstance(component, torch.nn.Module):
            for tensor in (*component.parameters(), *component.buffers()):
                if not is_traceable_wrapper_subclass(tensor):
                    tensor.data = tensor.data.clone()
    if scheduler is not None:
        pipeline.scheduler = scheduler(pipeline.scheduler.config)
    keywords = {name: _as_call(value, pictures) for name, value in case.keywords.items()}
    torch.set_num_threads(1)  # as the manifests say: kernels on several may add in another order
    torch.default_generator.manual_seed(seed)
    with torch.inference_mode():
        made = pipeline(**keywords, generator=torch.Generator().manual_seed(seed), output_type="np")
    return [torch.from_numpy(np.ascontiguousarray(value[0])).float() for value in made.values()]


def _as_call(value: Any, pictures: Path) -> Any:
    if isinstance(value, list):
        return (
            tuple(value)
            if all(isinstance(one, int) for one in value)
            else [_as_call(one, pictures) for one in value]
        )
    return Image.open(pictures / value) if isinstance(value, str) and value.endswith(".png") else value


def manifest(
    case: Case,
    checkpoint: Path,
    dtype: str = "float32",
    items: Sequence[Mapping[str, Any]] = ({},),
    parts: Mapping[str, str] | None = None,
    **stages: str,
) -> str:
    """A manifest of the call; ``items`` set other keywords, ``stages`` are more lines of a stage's table.

    ``parts`` are components from elsewhere.
    """
    elsewhere = _table("[model.components]", parts) if parts else ""
    tables = [
        f'version = 1\nname = "made"\n[model]\n{_model(case, checkpoint)}\n{elsewhere}\n[budget]\ndevice = "auto"\nthreads = 1',
        _table("[with]", case.keywords),
    ]
    for stage in STAGES:
        more = stages.get(stage, '[stage.with]\nformat = "safetensors"' if stage == "decode" else "")
        tables.append(f'[[stage]]\nname = "{stage}"\nuses = "diffusers.{stage}"\ndtype = "{dtype}"\n{more}')
    tables += [_table("[[item]]", {"seed": SEED, **item}) for item in items]
    return "\n".join(tables) + "\n"


def stage_tables(name: str, case: Case, checkpoint: Path, dtype: str, **stages: str) -> str:
    """The stages of one of several calls in a manifest: each has its own model and keywords.

    ``stages`` are more lines of a stage's table.
    """
    tables = []
    for stage in STAGES:
        own = {k: v for k, v in case.keywords.items() if _declares(stage, k, v)}
        own |= OWN.get(stage, {})
        wires = {"denoise": ("encoded",), "decode": ("encoded", "denoised")}.get(stage, ())
        tables += [
            f'[[stage]]\nname = "{name}-{stage}"\nuses = "diffusers.{stage}"\ndtype = "{dtype}"',
            stages.get(stage, ""),
            f"[stage.model]\n{_model(case, checkpoint)}",
            _table("[stage.from]", {wire: f"{name}-{wire.removesuffix('d')}.{wire}" for wire in wires}),
            _table("[stage.with]", own),
        ]
    return "\n".join(tables) + "\n"


def _model(case: Case, checkpoint: Path) -> str:
    lines = [f"source = {json.dumps(str(checkpoint))}"]
    return "\n".join([*lines, *([f'pipeline = "{case.pipeline}"'] if case.pipeline else [])])


def _table(header: str, values: Mapping[str, Any]) -> str:
    return "\n".join([header, *(f"{name} = {_toml(value)}" for name, value in values.items())])


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(name)} = {_toml(one)}" for name, one in value.items()) + " }"
    return json.dumps(value)


def _declares(stage: str, name: str, value: Any) -> bool:
    if stage == "decode":
        return ".png" in json.dumps(value)
    return stage == "denoise" or name not in AFTER_ENCODING
