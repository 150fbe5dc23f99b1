"""Generates inputs from a stage's declaration: small, different for each item, deterministic."""

from __future__ import annotations

import random
import struct
import zlib
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file

from runner.api import Bundle, Tensor, Text
from runner.plugin_check.harness import ITEMS, Inputs
from runner.plugin_check.parameters import NoExampleError

if TYPE_CHECKING:
    from pathlib import Path

    from runner.api import File, Stage

STEP = 8
"""Dimensions are multiples of it, a different one for each letter of the shapes."""
_KINDS = {"floating": "float32", "any": "float32", "integer": "int64"}


def synthetic_inputs(stage: Stage, folder: Path) -> list[Inputs]:
    """Inputs of two items, optional ones too; files are written to ``folder``.

    Raises:
        NoExampleError: an input is a file of a type that cannot be generated.

    """
    sizes: dict[str, int] = {}
    for tensor in stage.inputs:
        for letter in tensor.shape or () if isinstance(tensor, Tensor) else ():
            if isinstance(letter, str):
                sizes.setdefault(letter, STEP * (len(sizes) + 1))
    return [_inputs(stage, folder / item, sizes, seed) for seed, item in enumerate(ITEMS)]


def _inputs(stage: Stage, folder: Path, sizes: dict[str, int], seed: int) -> Inputs:
    folder.mkdir(parents=True)
    noise = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)
    tensors, texts, files = {}, {}, {}
    for declared in stage.inputs:
        if isinstance(declared, Tensor):
            tensors[declared.name] = _tensor(declared, sizes, generator)
        elif isinstance(declared, Text):
            texts[declared.name] = f"{ITEMS[seed]} {declared.name}"
        elif isinstance(declared, Bundle):
            raise NoExampleError(f"only the stage before it can make the input '{declared.name}'")
        else:
            files[declared.name] = folder / f"{declared.name}{declared.suffix}"
            files[declared.name].write_bytes(_file(declared, noise))
    path = folder / "tensors.safetensors"
    save_file(tensors, path)
    return Inputs(path, texts, files)


def _tensor(declared: Tensor, sizes: dict[str, int], generator: torch.Generator) -> torch.Tensor:
    dtype = getattr(torch, _KINDS.get(declared.dtype, declared.dtype))
    shape = [sizes[size] if isinstance(size, str) else size for size in declared.shape or (STEP, 2 * STEP)]
    if dtype.is_floating_point:
        return torch.rand(shape, generator=generator).to(dtype)
    return torch.randint(2 if dtype == torch.bool else STEP, shape, generator=generator).to(dtype)


def _file(declared: File, noise: random.Random) -> bytes:
    if declared.suffix == ".png":
        return _png(3 * STEP, 2 * STEP, noise)
    if declared.suffix in ("", ".txt"):
        return f"a line of text and a number: {noise.random()}\n".encode()
    raise NoExampleError(
        f"the input '{declared.name}' is a {declared.suffix} file, which cannot be generated"
    )


def _png(width: int, height: int, noise: random.Random) -> bytes:
    """RGB noise. https://www.w3.org/TR/png/"""
    rows = b"".join(b"\0" + noise.randbytes(3 * width) for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    packed = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)
