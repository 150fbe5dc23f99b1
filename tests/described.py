"""Hub models described in a process of its own, and a model of the published size to describe."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import runner_flux
from hub import Sparse
from project import Outcome

from runner.model.files import open_component

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from project import Project

MODEL = "some-lab/tiny-flux"
VAE = "vae/diffusion_pytorch_model.safetensors"
# the client reads its settings when it is imported: a process for each call
CALL = """
import json, sys
import runner_flux
from runner.errors import RunnerError
from runner.manifest.schema import ModelSource
from runner.model import hub
from runner.model.remote import describe

source = ModelSource(source=sys.argv[2], revision=sys.argv[3] or None)
try:
    if sys.argv[1] == "download":
        hub.download(source, [c for s in runner_flux.runner_stages() for c in s.components], lambda *_: None)
    told = [describe(source, stage.components) for stage in runner_flux.runner_stages()]
except RunnerError as error:
    print(error, file=sys.stderr)
    raise SystemExit(error.exit_code)
assert "torch" not in sys.modules
plain = [{n: [{w: vars(t) for w, t in s.tensors.items()}, dict(s.config)] for n, s in c.items()} for c in told]
print(json.dumps(plain))
"""


def start(project: Project, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CALL, *arguments],
        cwd=project.folder,
        env=project.environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def call(project: Project, function: str, revision: str = "", source: str = MODEL) -> Outcome:
    arguments = [function, source, revision]
    with start(project, *arguments) as process:
        stdout, stderr = process.communicate(timeout=100)
    return Outcome(arguments, process.returncode, stdout, stderr)


def describe(project: Project, revision: str = "", source: str = MODEL) -> Outcome:
    return call(project, "describe", revision, source)


def opened(folder: Path) -> list[dict[str, Any]]:
    """What the same folder tells on this machine."""
    plain = []
    for stage in runner_flux.runner_stages():
        shapes = {c.name: open_component(folder, c).shapes for c in stage.components}
        plain.append(
            {n: [{w: vars(t) for w, t in s.tensors.items()}, s.config] for n, s in shapes.items()},
        )
    told: list[dict[str, Any]] = json.loads(json.dumps(plain))
    return told


def weight_file(tables: Mapping[str, Any]) -> bytes:
    raw = json.dumps(tables).encode()
    return struct.pack("<Q", len(raw)) + raw


def long_header(tensors: int, data: int = 4) -> tuple[bytes, int]:
    """The start of a weight file, and its size."""
    named = {f"{n:0100}": [n * data, (n + 1) * data] for n in range(tensors)}
    tables = {
        name: {"dtype": "F32", "shape": [data // 4], "data_offsets": ends} for name, ends in named.items()
    }
    head = weight_file(tables)
    return head, len(head) + tensors * data


def published_flux() -> dict[str, bytes | Sparse]:
    """Files as FLUX.1-dev has them: names, shapes and sizes, and zeros for weights."""
    import torch
    from diffusers import AutoencoderKL, FluxTransformer2DModel
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    clip = CLIPTextConfig(
        vocab_size=49408,
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
    )
    t5 = T5Config(
        vocab_size=32128,
        d_model=4096,
        d_ff=10240,
        num_layers=24,
        num_heads=64,
        feed_forward_proj="gated-gelu",
    )
    channels = (128, 256, 512, 512)
    with torch.device("meta"):
        models = {
            "text_encoder/model": (CLIPTextModel(clip), 10e9),
            "text_encoder_2/model": (T5EncoderModel(t5), 5e9),
            "transformer/diffusion_pytorch_model": (FluxTransformer2DModel(guidance_embeds=True), 10e9),
            "vae/diffusion_pytorch_model": (
                AutoencoderKL(
                    block_out_channels=channels,
                    down_block_types=("DownEncoderBlock2D",) * 4,
                    up_block_types=("UpDecoderBlock2D",) * 4,
                    layers_per_block=2,
                    latent_channels=16,
                    use_quant_conv=False,
                    use_post_quant_conv=False,
                ),
                10e9,
            ),
        }
    files: dict[str, bytes | Sparse] = {"scheduler/scheduler_config.json": b"{}"}
    for folder in ("tokenizer", "tokenizer_2"):
        files[f"{folder}/tokenizer_config.json"] = b"{}"
    for name, (model, most) in models.items():
        weights = {n: w for n, w in model.state_dict().items() if n != "encoder.embed_tokens.weight"}
        files |= _shards(name, weights, most)
        config = model.config.to_dict() if hasattr(model.config, "to_dict") else dict(model.config)
        files[f"{name.partition('/')[0]}/config.json"] = json.dumps(config).encode()
    return files


def _shards(name: str, weights: dict[str, Any], most: float) -> dict[str, bytes | Sparse]:
    shards: list[dict[str, Any]] = [{}]
    end = 0
    for weight, tensor in weights.items():
        size = 2 * tensor.numel()
        if end + size > most:
            shards.append({})
            end = 0
        shards[-1][weight] = {
            "dtype": "BF16",
            "shape": list(tensor.shape),
            "data_offsets": [end, end + size],
        }
        end += size
    names = [f"{name}-{n + 1:05}-of-{len(shards):05}.safetensors" for n in range(len(shards))]
    heads = [
        (weight_file(shard), max(table["data_offsets"][1] for table in shard.values())) for shard in shards
    ]
    files = {n: Sparse(head, len(head) + data) for n, (head, data) in zip(names, heads, strict=True)}
    return files if len(files) > 1 else {f"{name}.safetensors": next(iter(files.values()))}
