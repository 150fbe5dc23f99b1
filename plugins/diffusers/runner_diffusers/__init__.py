"""Stages for diffusers' pipelines: any that can be split into encode, denoise and decode.

Nothing here imports torch, diffusers or transformers. The code of the stages is imported in the workers.
"""

from __future__ import annotations

from runner.api import Bundle, File, Stage, Template, hookimpl

__version__ = "0.1.0"
RUNNER_API = 1

COMPONENTS, PARAMS, CHECKS = (
    f"runner_diffusers.pipelines.{name}" for name in ("components", "params", "checks")
)

ENCODE = Stage(
    name="diffusers.encode",
    version=1,
    summary="prompts, pictures and clips to what the denoiser takes, with the pipeline's encoders",
    params=f"{PARAMS}:encode",
    outputs=(Bundle("encoded"),),
    components=f"{COMPONENTS}:encode",
    start="runner_diffusers.encode:start",
    memory="runner_diffusers.memory:encode",
    preload=("runner_diffusers.encode",),
    check=f"{CHECKS}:encode",
)

DENOISE = Stage(
    name="diffusers.denoise",
    version=2,
    summary="the pipeline's denoising loop, with its transformers or UNet",
    params=f"{PARAMS}:denoise",
    inputs=(Bundle("encoded"),),
    outputs=(Bundle("denoised"),),
    components=f"{COMPONENTS}:denoise",
    start="runner_diffusers.denoise:start",
    memory="runner_diffusers.memory:denoise",
    preload=("runner_diffusers.denoise",),
    check=f"{CHECKS}:denoise",
)

DECODE = Stage(
    name="diffusers.decode",
    version=2,
    summary="latents to a picture, a clip or sound, with the pipeline's VAE",
    params=f"{PARAMS}:decode",
    inputs=(Bundle("encoded"), Bundle("denoised")),
    outputs=(File("output", ".{format}"),),
    components=f"{COMPONENTS}:decode",
    start="runner_diffusers.decode:start",
    memory="runner_diffusers.memory:decode",
    preload=("runner_diffusers.decode",),
    check=f"{CHECKS}:decode",
)


PICTURE, MASK, CLIP = "picture.png", "mask.png", "clip.mp4"
EXAMPLES = tuple(f"templates/examples/{name}" for name in (PICTURE, MASK, CLIP))
TEMPLATES = tuple(
    Template(
        name,
        (pipeline,),
        f"templates/{name}.toml",
        recommend="runner_diffusers.pipelines.examples:recommend",
        only_by_name=True,
        files=EXAMPLES,
    )
    for name, pipeline in (
        ("klein", "Flux2KleinPipeline"),
        ("qwen_image", "QwenImagePipeline"),
        ("z_image", "ZImagePipeline"),
        ("sdxl", "StableDiffusionXLPipeline"),
        ("sd3", "StableDiffusion3Pipeline"),
        ("kontext", "FluxKontextPipeline"),
        ("wan", "WanPipeline"),
        ("wan_i2v", "WanImageToVideoPipeline"),
        ("ltx", "LTXPipeline"),
        ("any", "*"),
    )
)


@hookimpl
def runner_stages() -> tuple[Stage, ...]:
    return (ENCODE, DENOISE, DECODE)


@hookimpl
def runner_templates() -> tuple[Template, ...]:
    return TEMPLATES
