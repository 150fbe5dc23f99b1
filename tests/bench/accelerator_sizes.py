"""Sizes of the accelerator's benchmark, and the random checkpoints that it runs."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.units import format_size

if TYPE_CHECKING:
    from pathlib import Path

GIB = 1 << 30


@dataclass(frozen=True)
class Size:
    """How large the model and its pictures are. Sizes are bytes."""

    name: str
    limit: str
    """Of the device's memory, for all that is not run without a limit."""
    memory: int
    """What the device needs for the runs without a limit."""
    disk: int
    """What the checkpoint and the runs take."""
    side: int
    """Pixels."""
    text: int
    """Tokens of T5."""
    tile: int
    """Pixels of a decoder's tile."""
    steps: int
    items: tuple[int, ...] = (1, 4, 16)
    """Numbers of items that are streamed; the last is the most."""


SIZES = {
    size.name: size
    for size in (
        Size("tiny", "28MiB", 0, GIB // 4, side=192, text=32, tile=128, steps=2, items=(1, 2, 4)),
        Size("small", "3GiB", 6 * GIB, 5 * GIB, side=512, text=64, tile=256, steps=2),
        Size("full", "8GiB", 40 * GIB, 36 * GIB, side=1024, text=512, tile=512, steps=3),
    )
}
"""``tiny`` tries the benchmark out; ``small`` has 2 double and 6 single blocks of FLUX.1; ``full`` is FLUX.1."""


def largest_for(memory: int) -> Size:
    """The largest size for a device with as much memory."""
    return max((size for size in SIZES.values() if size.memory <= memory), key=lambda size: size.memory)


def check_disk(folder: Path, size: Size) -> None:
    """Exit with a message if a folder has too little room."""
    free = shutil.disk_usage(folder).free
    if free < size.disk:
        raise SystemExit(
            f"{folder} has {format_size(free)} free; the size {size.name} needs {format_size(size.disk)}: "
            "name another folder with --folder, or a smaller --size"
        )


def make_checkpoint(folder: Path, size: Size, device: str) -> int:
    """Write a random checkpoint in FLUX.1's published layout; returns the bytes of its files.

    It appears under its name once it is whole.
    """
    from checkpoints import make_flux
    from large import make_full_flux, make_transformer

    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    if size.name == "full":
        make_full_flux(partial, sparse=False, device=device)
    elif size.name == "small":
        make_flux(partial, text=(768, 4096))
        shutil.rmtree(partial / "transformer")
        make_transformer(partial / "transformer", double=2, single=6, device=device)
    else:
        make_flux(partial, width=128, layers=(2, 6), shard="2MB")
    partial.rename(folder)
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
