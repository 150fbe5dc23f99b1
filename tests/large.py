"""Checkpoints at the real size of FLUX.1: files of the published names, shapes and shards, without the model.

Written straight to disk, tensor by tensor, since what they are made to try out is memory.
"""

# mypy: disable-error-code="operator,union-attr"

from __future__ import annotations

import itertools
import json
import math
import shutil
from typing import TYPE_CHECKING, Any

import torch
from checkpoints import DEMO, DEV

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from transformers import CLIPTextConfig, T5Config

CLIP_TOKENS, T5_TOKENS = 49_408, 32_100
DOUBLE, SINGLE = 19, 38  # blocks of FLUX.1's transformer
SHARD = 9_950_000_000  # bytes; FLUX.1-dev's transformer comes in three files
CHUNK = 1 << 24  # random numbers that are drawn; every tensor is a stretch of them, repeated

Shapes = dict[str, tuple[int, ...]]


def make_full_flux(
    folder: Path,
    *,
    double: int = DOUBLE,
    single: int = SINGLE,
    sparse: bool = True,
    device: str = "cpu",
) -> Path:
    """A FLUX.1-dev checkpoint in bfloat16; ``sparse`` files have headers and zeros that take no room.

    Weights of other files are drawn on the ``device``.
    """
    # here, since it takes seconds, and not all that import this module make a checkpoint
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler
    from transformers import CLIPTextModel, T5EncoderModel

    write_tokenizers(folder)
    FlowMatchEulerDiscreteScheduler(**DEV).save_pretrained(folder / "scheduler")
    shutil.copy(DEMO / "model_index.json", folder)
    with torch.device("meta"):
        clip, t5, vae = CLIPTextModel(_clip()), T5EncoderModel(_t5()), AutoencoderKL(**VAE)
    write(folder / "text_encoder", clip, "model", sparse=sparse, prefix="text_model.", device=device)
    write(
        folder / "text_encoder_2",
        t5,
        "model",
        sparse=sparse,
        shard=5_000_000_000,
        without=("shared.weight",),
        device=device,
    )
    make_transformer(folder / "transformer", double=double, single=single, sparse=sparse, device=device)
    write(folder / "vae", vae, "diffusion_pytorch_model", sparse=sparse, device=device)
    return folder


def write_tokenizers(folder: Path) -> None:
    """The demo's, with as many more words as the encoders have embeddings for."""
    for tokenizer in ("tokenizer", "tokenizer_2"):
        shutil.copytree(DEMO / tokenizer, folder / tokenizer)
    vocab, merges = folder / "tokenizer/vocab.json", folder / "tokenizer/merges.txt"
    words: dict[str, int] = json.loads(vocab.read_text())
    every = itertools.product([w for w in words if len(w) == 1], list(words))
    pairs = ((a, b) for a, b in every if a + b not in words and not b.startswith("<|"))
    grown = {a + b: (a, b) for a, b in itertools.islice(pairs, CLIP_TOKENS - len(words))}
    vocab.write_text(json.dumps(words | {word: len(words) + n for n, word in enumerate(grown)}))
    merges.write_text(merges.read_text().rstrip() + "".join(f"\n{a} {b}" for a, b in grown.values()) + "\n")
    (folder / "tokenizer_2/spiece.model").unlink()
    table = json.loads((folder / "tokenizer_2/tokenizer.json").read_text())
    known = table["model"]["vocab"]
    known += [[f"word{n}", -99.0] for n in range(T5_TOKENS - len(known))]
    (folder / "tokenizer_2/tokenizer.json").write_text(json.dumps(table))


def make_transformer(
    folder: Path, *, double: int, single: int, sparse: bool = False, device: str = "cpu"
) -> Path:
    """FLUX.1-dev's transformer at full width, with as many blocks; 2 and 6 of them are 3 GB."""
    from diffusers import FluxTransformer2DModel

    with torch.device("meta"):
        transformer = FluxTransformer2DModel(
            num_layers=double, num_single_layers=single, guidance_embeds=True
        )
    write(folder, transformer, "diffusion_pytorch_model", sparse=sparse, device=device)
    return folder


VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 16,
    "sample_size": 1024,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}


def _clip() -> CLIPTextConfig:
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        projection_dim=768,
    )


def _t5() -> T5Config:
    from transformers import T5Config

    return T5Config(
        vocab_size=32128, d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64, feed_forward_proj="gated-gelu",
        is_encoder_decoder=False, use_cache=False,
    )  # fmt: skip


def write(
    folder: Path,
    model: torch.nn.Module,
    stem: str,
    *,
    sparse: bool,
    shard: int = SHARD,
    prefix: str = "",
    without: tuple[str, ...] = (),
    device: str = "cpu",
) -> None:
    """Write a model that is on the meta device: its config, and its shapes filled with something."""
    folder.mkdir(parents=True)
    if hasattr(model.config, "to_json_file"):
        model.config.architectures = [type(model).__name__]
        model.config.to_json_file(folder / "config.json", use_diff=False)
    else:
        model.save_config(folder)
    shapes: Shapes = {
        prefix + name.removeprefix(prefix): tuple(tensor.shape)
        for name, tensor in model.state_dict().items()
        if name not in without
    }
    shards = _shards(shapes, shard)
    if len(shards) == 1:
        _write_file(folder / f"{stem}.safetensors", shards[0], sparse=sparse, device=device)
        return
    names = [f"{stem}-{n + 1:05}-of-{len(shards):05}.safetensors" for n in range(len(shards))]
    weights = {tensor: name for name, part in zip(names, shards, strict=True) for tensor in part}
    total = sum(2 * math.prod(shape) for shape in shapes.values())
    index = {"metadata": {"total_size": total}, "weight_map": weights}
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index))
    for name, part in zip(names, shards, strict=True):
        _write_file(folder / name, part, sparse=sparse, device=device)


def _shards(shapes: Shapes, limit: int) -> list[Shapes]:
    shards: list[Shapes] = [{}]
    size = 0
    for name, shape in shapes.items():
        size += 2 * math.prod(shape)
        if size > limit and shards[-1]:
            shards.append({})
            size = 2 * math.prod(shape)
        shards[-1][name] = shape
    return shards


def _write_file(path: Path, shapes: Mapping[str, tuple[int, ...]], *, sparse: bool, device: str) -> None:
    offset, tables = 0, {}
    for name, shape in shapes.items():
        size = 2 * math.prod(shape)
        tables[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    header = json.dumps({"__metadata__": {"format": "pt"}, **tables}).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        if sparse:
            file.truncate(8 + len(header) + offset)
            return
        generator = torch.Generator(device).manual_seed(len(shapes))
        numbers = torch.randn(CHUNK, generator=generator, device=device)
        scaled: dict[int, Any] = {}  # by the number of inputs: computed once for all tensors that share it
        for shape in shapes.values():
            inputs = math.prod(shape[1:])
            if len(shape) > 1 and inputs not in scaled:
                scaled[inputs] = _raw(numbers / math.sqrt(inputs))
            _write_tensor(file, shape, scaled[inputs] if len(shape) > 1 else numbers)


def _raw(numbers: torch.Tensor) -> Any:
    """The bytes of the numbers in bfloat16."""
    return numbers.to(torch.bfloat16).cpu().view(torch.uint8).numpy()


def _write_tensor(file: Any, shape: tuple[int, ...], numbers: Any) -> None:
    """Normal weights of deviation 1/sqrt(inputs), given as bytes; norms' scales are around one, biases small."""
    count = math.prod(shape)
    raw = numbers if len(shape) > 1 else _raw(numbers[:count] * 0.02 + (1 if shape[0] <= 128 else 0))
    start = (file.tell() * 7919) % CHUNK & ~1  # another stretch for every tensor
    left = 2 * count
    while left > 0:
        stretch = raw[start : start + left] if len(shape) > 1 else raw[:left]
        file.write(stretch)
        left -= len(stretch)
        start = 0
