"""The FLUX.1 plugin: its stages, template and demo. The code of the stages is imported in the workers."""

from __future__ import annotations

from runner.api import Component, Demo, File, Stage, Template, Tensor, hookimpl

__version__ = "0.1.0"
RUNNER_API = 1

EMBEDS = ("S", "D")  # T5's tokens and width
POOLED = ("P",)  # CLIP's width
LATENTS = ("C", "H", "W")  # unpacked: 16 channels, 1/8 of the picture's height and width

TEXT_TO_IMAGE = ("FluxPipeline", "FluxImg2ImgPipeline", "FluxInpaintPipeline")  # the same transformer
# the models of the others have the same encoders and VAE, but transformers with further inputs
FLUX = (*TEXT_TO_IMAGE, "FluxFillPipeline", "FluxKontextPipeline", "FluxControlPipeline")

ENCODE = Stage(
    name="flux.encode",
    version=1,
    summary="prompts to embeddings, with CLIP and T5",
    params="runner_flux.params:Encode",
    outputs=(
        Tensor("prompt_embeds", "floating", EMBEDS),
        Tensor("pooled_prompt_embeds", "floating", POOLED),
        Tensor("negative_prompt_embeds", "floating", EMBEDS, optional=True),
        Tensor("negative_pooled_prompt_embeds", "floating", POOLED, optional=True),
    ),
    components=(
        Component("text_encoder", "transformers:CLIPTextModel"),
        Component("text_encoder_2", "transformers:T5EncoderModel", float32={"float16": ("wo",)}),
        Component("tokenizer", "transformers:CLIPTokenizer"),
        Component("tokenizer_2", "transformers:T5TokenizerFast"),
    ),
    start="runner_flux.encode:start",
    memory="runner_flux.memory:encode",
    preload=("runner_flux.encode",),
    pipelines=FLUX,
    check="runner_flux.checks:encode",
)

DIFFUSE = Stage(
    name="flux.diffuse",
    version=1,
    summary="embeddings to latents, with the transformer",
    params="runner_flux.params:Diffuse",
    inputs=(
        Tensor("prompt_embeds", "floating", EMBEDS),
        Tensor("pooled_prompt_embeds", "floating", POOLED),
        Tensor("negative_prompt_embeds", "floating", EMBEDS, optional=True),
        Tensor("negative_pooled_prompt_embeds", "floating", POOLED, optional=True),
    ),
    outputs=(Tensor("latents", "floating", LATENTS),),
    components=(
        Component("transformer", "diffusers:FluxTransformer2DModel"),
        Component("scheduler", "diffusers:FlowMatchEulerDiscreteScheduler"),
        # its scale factor determines the latents' size; its weights are not needed
        Component("vae", "diffusers:AutoencoderKL", config_only=True),
    ),
    start="runner_flux.diffuse:start",
    memory="runner_flux.memory:diffuse",
    preload=("runner_flux.diffuse",),
    pipelines=TEXT_TO_IMAGE,
    check="runner_flux.checks:diffuse",
)

DECODE = Stage(
    name="flux.decode",
    version=1,
    summary="latents to a PNG, with the VAE",
    params="runner_flux.params:Decode",
    inputs=(Tensor("latents", "floating", LATENTS),),
    outputs=(File("image", ".png"),),
    components=(Component("vae", "diffusers:AutoencoderKL"),),
    start="runner_flux.decode:start",
    memory="runner_flux.memory:decode",
    preload=("runner_flux.decode",),
    pipelines=FLUX,
    check="runner_flux.checks:decode",
)


DEMO = Demo("flux", "demo.toml", "six pictures of coloured shapes, on any CPU, in seconds")
NEW = Template(
    "flux",
    ("FluxPipeline",),
    "new.toml",
    model="black-forest-labs/FLUX.1-dev",
    recommend="runner_flux.recommend:recommend",
)


@hookimpl
def runner_stages() -> tuple[Stage, ...]:
    return (ENCODE, DIFFUSE, DECODE)


@hookimpl
def runner_templates() -> tuple[Template, ...]:
    return (NEW,)


@hookimpl
def runner_demos() -> tuple[Demo, ...]:
    return (DEMO,)
