"""The transformer is trained on what the pipeline will give it."""

from __future__ import annotations

import pytest
import torch
from demo_model import pool
from demo_model.attention import MatmulAttention
from demo_model.scenes import CANVASES
from demo_model.transformer import build
from diffusers import FluxPipeline


@pytest.mark.parametrize("canvas", CANVASES)
def test_tokens_are_packed_as_in_the_pipeline(canvas: tuple[int, int]) -> None:
    height, width = canvas[0] // 8, canvas[1] // 8
    latents = torch.randn(2, 16, height, width)
    assert pool.pack(latents).equal(FluxPipeline._pack_latents(latents, 2, 16, height, width))
    ids = FluxPipeline._prepare_latent_image_ids(1, height // 2, width // 2, "cpu", torch.float32)
    assert pool.token_ids(canvas, torch.device("cpu")).equal(ids)


@torch.no_grad()
def test_training_attention_is_the_pipelines() -> None:
    torch.manual_seed(0)
    net = build()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    asked = {
        "hidden_states": torch.randn(2, 64, 64),
        "encoder_hidden_states": torch.randn(2, 20, 128),
        "pooled_projections": torch.randn(2, 128),
        "timestep": torch.tensor([0.3, 0.7]),
        "guidance": torch.tensor([1.0, 2.0]),
        "img_ids": pool.token_ids(CANVASES[0], torch.device("cpu")),
        "txt_ids": torch.zeros(20, 3),
    }
    theirs = net(**asked).sample
    net.set_attn_processor(MatmulAttention())
    torch.testing.assert_close(net(**asked).sample, theirs)
