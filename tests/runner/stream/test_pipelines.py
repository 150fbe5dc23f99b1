"""Pipelines and encoders that no plugin here knows, in lockstep: the same bits as resident one by one."""

# mypy: disable-error-code="call-arg,misc,no-any-return"

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from checkpoints import make_flux, weight_names
from component_loading import place, reference
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    WanPipeline,
    WanTransformer3DModel,
)
from towers import stored_bytes, together
from transformers import (
    CLIPTextModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    T5Config,
    T5EncoderModel,
)

from runner.placement.loader import ComponentLoader

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DTYPES = [torch.float32, torch.bfloat16]


def loader_of(dtype: torch.dtype) -> ComponentLoader:
    return ComponentLoader(torch.device("cpu"), dtype)


def drawn(seed: int, *shape: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.fixture(scope="module")
def sd3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    transformer = SD3Transformer2DModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        num_layers=4,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=32,
        caption_projection_dim=32,
        pooled_projection_dim=16,
        pos_embed_max_size=16,
        dual_attention_layers=(0, 1),
        qk_norm="rms_norm",
    )
    folder = tmp_path_factory.mktemp("sd3") / "transformer"
    transformer.to(torch.bfloat16).save_pretrained(folder, max_shard_size="150KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    return folder


def draw_sd3(
    transformer: Any, seed: int, steps: int, height: int, width: int, guidance: float
) -> Callable[[], torch.Tensor]:
    def call() -> torch.Tensor:
        dtype = transformer.dtype
        pipeline = StableDiffusion3Pipeline(
            transformer=transformer,
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            **dict.fromkeys(
                [
                    "vae",
                    "text_encoder",
                    "text_encoder_2",
                    "text_encoder_3",
                    "tokenizer",
                    "tokenizer_2",
                    "tokenizer_3",
                ]
            ),
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline(
            prompt_embeds=drawn(seed, 1, 6 + seed, 32, dtype=dtype),
            pooled_prompt_embeds=drawn(seed + 1, 1, 16, dtype=dtype),
            negative_prompt_embeds=drawn(seed + 2, 1, 6 + seed, 32, dtype=dtype),
            negative_pooled_prompt_embeds=drawn(seed + 3, 1, 16, dtype=dtype),
            guidance_scale=guidance,
            num_inference_steps=steps,
            height=height,
            width=width,
            generator=torch.Generator().manual_seed(seed),
            output_type="latent",
        ).images

    return call


SD3_ITEMS = [(0, 3, 64, 96, 5.0), (1, 1, 32, 32, 5.0), (2, 4, 96, 48, 1.0), (3, 2, 64, 64, 7.0)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_stable_diffusion_3_with_guidance(sd3: Path, dtype: torch.dtype) -> None:
    resident = reference(SD3Transformer2DModel, sd3, dtype)
    expected = [draw_sd3(resident, *item)() for item in SD3_ITEMS]
    worker = loader_of(dtype)
    transformer = place(
        "stream", SD3Transformer2DModel, sd3, dtype, {"transformer_blocks": "disk"}, loader=worker
    )

    drawings = together(worker.stream, [draw_sd3(transformer, *item) for item in SD3_ITEMS])

    for drawing, wanted in zip(drawings, expected, strict=True):
        assert torch.equal(drawing, wanted)
        assert wanted.isfinite().all()
        assert wanted.std() > 0
    streamed = stored_bytes(sd3, ["transformer_blocks"])
    most_steps = max(steps for _, steps, *_ in SD3_ITEMS)
    assert most_steps * streamed <= worker.stream.bytes_read <= most_steps * streamed + streamed / 3


@pytest.fixture(scope="module")
def wan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    transformer = WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=16,
        freq_dim=16,
        ffn_dim=40,
        num_layers=3,
        rope_max_seq_len=32,
    )
    folder = tmp_path_factory.mktemp("wan")
    for stored in DTYPES:
        transformer.to(stored).save_pretrained(folder / str(stored), max_shard_size="20KB")
    return folder


def draw_wan(
    transformer: Any, seed: int, steps: int, height: int, width: int, frames: int
) -> Callable[[], torch.Tensor]:
    def call() -> torch.Tensor:
        pipeline = WanPipeline(
            tokenizer=None,
            text_encoder=None,
            vae=None,
            transformer=transformer,
            scheduler=FlowMatchEulerDiscreteScheduler(shift=5.0),
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline(
            prompt_embeds=drawn(seed, 1, 7, 16, dtype=transformer.dtype),
            negative_prompt_embeds=drawn(seed + 1, 1, 7, 16, dtype=transformer.dtype),
            guidance_scale=4.0,
            num_inference_steps=steps,
            height=height,
            width=width,
            num_frames=frames,
            generator=torch.Generator().manual_seed(seed),
            output_type="latent",
        ).frames

    return call


WAN_ITEMS = [(0, 2, 32, 48, 5), (1, 3, 16, 16, 9), (2, 1, 48, 32, 1)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_wan_video_with_two_passes_a_step(wan: Path, dtype: torch.dtype) -> None:
    folder = wan / str(dtype)
    resident = reference(WanTransformer3DModel, folder, dtype)
    expected = [draw_wan(resident, *item)() for item in WAN_ITEMS]
    worker = loader_of(dtype)
    transformer = place("stream", WanTransformer3DModel, folder, dtype, {"blocks": "disk"}, loader=worker)

    videos = together(worker.stream, [draw_wan(transformer, *item) for item in WAN_ITEMS])

    for video, wanted in zip(videos, expected, strict=True):
        assert video.ndim == 5
        assert torch.equal(video, wanted)
    streamed = stored_bytes(folder, ["blocks"])
    passes = 2 * max(steps for _, steps, *_ in WAN_ITEMS)
    assert passes * streamed <= worker.stream.bytes_read <= passes * streamed + streamed / 2


def ids(seed: int) -> torch.Tensor:
    return torch.randint(1, 150, (1, 5 + seed), generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def t5_in_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(2)
    config = T5Config(
        vocab_size=154, d_model=24, d_ff=56, d_kv=8, num_heads=3, num_layers=4, feed_forward_proj="gated-gelu"
    )
    folder = tmp_path_factory.mktemp("t5") / "text_encoder"
    T5EncoderModel(config).to(torch.bfloat16).save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    assert "encoder.embed_tokens.weight" not in weight_names(folder)
    return folder


@pytest.mark.parametrize("dtype", DTYPES)
def test_thirty_two_prompts_read_the_weights_of_t5_once(t5_in_shards: Path, dtype: torch.dtype) -> None:
    resident = reference(T5EncoderModel, t5_in_shards, dtype)
    worker = loader_of(dtype)
    t5 = place("stream", T5EncoderModel, t5_in_shards, dtype, {"encoder.block": "disk"}, loader=worker)

    embeds = together(worker.stream, [lambda n=n: t5(ids(n))[0] for n in range(32)])

    assert all(torch.equal(embeds[n], resident(ids(n))[0]) for n in range(32))
    # and the first block once more, for the next group
    first = stored_bytes(t5_in_shards, ["encoder.block.0"])
    assert worker.stream.bytes_read == stored_bytes(t5_in_shards, ["encoder.block"]) + first
    assert t5.shared.weight.data_ptr() == t5.encoder.embed_tokens.weight.data_ptr()


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model with its head, whose files put one name more before those of the model in it."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=500, hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=4
    )
    folder = tmp_path_factory.mktemp("llama") / "text_encoder"
    LlamaForCausalLM(config).save_pretrained(folder)
    assert "model.layers.0.self_attn.q_proj.weight" in weight_names(folder)
    return folder


@pytest.mark.parametrize("cls", [LlamaModel, LlamaForCausalLM])
def test_a_model_out_of_a_larger_ones_files(llama: Path, cls: type) -> None:
    resident = reference(cls, llama, torch.float32)
    worker = loader_of(torch.float32)
    layers = {f"model.layers.{n}": "disk" for n in range(4)}  # as the plan names them, from the files
    streamed = place("stream", cls, llama, torch.float32, layers, loader=worker)

    results = together(worker.stream, [lambda n=n: streamed(ids(n))[0] for n in range(3)])

    assert all(torch.equal(results[n], resident(ids(n))[0]) for n in range(3))
    first = stored_bytes(llama, ["model.layers.0"])
    assert worker.stream.bytes_read == stored_bytes(llama, ["model.layers"]) + first


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CLIP under the names that its library used to write, and T5."""
    folder = make_flux(tmp_path_factory.mktemp("model"))
    assert all(name.startswith("text_model.") for name in weight_names(folder / "text_encoder"))
    return folder


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_two_encoders_in_turn_one_asked_for_its_layers(
    encoders: Path, dtype: torch.dtype, whole: bool
) -> None:
    """What a call asks its library to collect on the way is its own, not its neighbours'."""
    models = (
        (CLIPTextModel, encoders / "text_encoder", "text_model.encoder.layers"),
        (T5EncoderModel, encoders / "text_encoder_2", "encoder.block"),
    )
    worker = loader_of(dtype)
    residents = [reference(cls, folder, dtype) for cls, folder, _ in models]
    streamed = [
        place("stream", cls, folder, dtype, {"" if whole else blocks: "disk"}, loader=worker)
        for cls, folder, blocks in models
    ]

    def encode(clip: Any, t5: Any, n: int) -> list[torch.Tensor]:
        output = clip(ids(n), output_hidden_states=n == 1)
        assert (output.hidden_states is not None) == (n == 1)
        return [output.pooler_output, *(output.hidden_states or ()), t5(ids(n + 1))[0], t5(ids(n))[0]]

    encoded = together(worker.stream, [lambda n=n: encode(*streamed, n) for n in range(4)])

    for n in range(4):
        expected = encode(*residents, n)
        assert len(encoded[n]) == len(expected)
        assert all(torch.equal(a, b) for a, b in zip(encoded[n], expected, strict=True))
