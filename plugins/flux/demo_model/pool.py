"""The training set of the transformer: scenes, encoded once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from . import vae as vae_part
from .scenes import CANVASES, COLOUR_NAMES, Scene, Spot, draw_scene, lay_out, paint
from .shapes import SHAPES, distance
from .training import Place, generator_of

if TYPE_CHECKING:
    from diffusers import AutoencoderKL
    from numpy.typing import NDArray
    from torch import Tensor

PATCH = 16  # pixels: what one token of the transformer covers, 2 x 2 latents
GRID = 4  # sampling points along a patch's side
SQUARE_SHARE = 0.9  # of the scenes; the rest is shared by the other canvases
COVERS = [len(SHAPES) + 1, len(COLOUR_NAMES), 2, 3]  # the parts of a map's channels, see _map


@dataclass
class Pool:
    """Encoded scenes of one canvas; scene i is generated again from its number when it is needed."""

    canvas: tuple[int, int]
    latents: Tensor  # scenes x tokens x 64: packed, as the transformer sees them, bfloat16
    maps: Tensor  # scenes x tokens x sum(COVERS), float16

    def scene(self, seed: int, index: int) -> Scene:
        """The scene of that number."""
        return _numbered(seed, index, self.canvas)[0]


def load(count: int, place: Place) -> list[Pool]:
    """The pools of all canvases, `count` scenes in total; encoded if they do not exist yet."""
    others = max(1, int(count * (1 - SQUARE_SHARE) / 2))
    counts = (count - 2 * others, others, others)
    pools = []
    for canvas, size in zip(CANVASES, counts, strict=True):
        path = place.result(f"pool-{canvas[0]}x{canvas[1]}-{size}.pt")
        if not path.exists():
            pool = _fill(canvas, size, place)
            torch.save({"latents": pool.latents, "maps": pool.maps}, path.with_suffix(".part"))
            path.with_suffix(".part").replace(path)
        pools.append(Pool(canvas, **torch.load(path, weights_only=True)))
    return pools


def pack(latents: Tensor) -> Tensor:
    """Latents (batch x 16 x height x width) as batch x tokens x 64, as the pipeline packs them."""
    batch, channels, height, width = latents.shape
    patches = latents.reshape(batch, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return patches.reshape(batch, height * width // 4, channels * 4)


def unpack(tokens: Tensor, canvas: tuple[int, int]) -> Tensor:
    """The inverse of pack."""
    rows, columns = canvas[0] // PATCH, canvas[1] // PATCH
    patches = tokens.reshape(len(tokens), rows, columns, -1, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return patches.reshape(len(tokens), -1, 2 * rows, 2 * columns)


def token_ids(canvas: tuple[int, int], device: torch.device) -> Tensor:
    """The image tokens' positions, like the pipeline's: tokens x 3."""
    height, width = canvas[0] // PATCH, canvas[1] // PATCH
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([torch.zeros_like(rows), rows, columns], -1).reshape(-1, 3).float().to(device)


def _numbered(seed: int, index: int, canvas: tuple[int, int]) -> tuple[Scene, tuple[Spot, ...]]:
    rng = generator_of(seed, f"pool {canvas}", index)
    scene = draw_scene(rng)
    return scene, lay_out(scene, rng, canvas)


@torch.no_grad()
def _fill(canvas: tuple[int, int], count: int, place: Place) -> Pool:
    vae: AutoencoderKL = vae_part.load(place)
    latents, maps = [], []
    for first in range(0, count, 64):
        drawn = [_numbered(place.seed, index, canvas) for index in range(first, min(count, first + 64))]
        pixels = vae_part.to_tensor([paint(*scene, canvas) for scene in drawn], place.device)
        with place.autocast():
            encoded = vae_part.encode(vae, pixels)
        latents.append(pack(vae_part.scaled(vae, encoded)).to("cpu", torch.bfloat16))
        maps.append(torch.from_numpy(np.stack([_map(*scene, canvas) for scene in drawn])))
        if first % 3200 == 0:
            print(f"pool {canvas[0]}x{canvas[1]}: {first}/{count}", flush=True)
    return Pool(canvas, torch.cat(latents), torch.cat(maps))


def _map(scene: Scene, spots: tuple[Spot, ...], canvas: tuple[int, int]) -> NDArray[np.float16]:
    """Targets of the auxiliary loss on the transformer's tokens: tokens x sum(COVERS).

    The share of the patch that each shape (last: none) and each colour covers; the patch's position (x, y);
    the offset to the nearest thing, and its radius. Positions are in half canvases from the centre, offsets
    and radii in patches.
    """
    rows, columns = canvas[0] // PATCH, canvas[1] // PATCH
    shapes = np.zeros((rows, columns, COVERS[0]), np.float32)
    colours = np.zeros((rows, columns, COVERS[1]), np.float32)
    y, x = (np.mgrid[0 : rows * GRID, 0 : columns * GRID].astype(np.float32) + 0.5) * PATCH / GRID
    centre_y, centre_x = (np.mgrid[0:rows, 0:columns].astype(np.float32) + 0.5) * PATCH
    nearest, way = np.full((rows, columns), np.inf), np.zeros((rows, columns, 3), np.float32)
    for thing, spot in zip(scene.things, spots, strict=True):
        inside = distance(thing.shape, x - spot.x, y - spot.y, spot.radius) < 0
        cover = inside.reshape(rows, GRID, columns, GRID).mean((1, 3))
        shapes[..., SHAPES.index(thing.shape)] += cover
        colours[..., COLOUR_NAMES.index(thing.colour)] += cover
        radius = np.full((rows, columns), spot.radius)
        to_thing = np.stack([spot.x - centre_x, spot.y - centre_y, radius], -1) / PATCH
        length = np.hypot(to_thing[..., 0], to_thing[..., 1])
        way = np.where((length < nearest)[..., None], to_thing, way)
        nearest = np.minimum(nearest, length)
    bare = np.clip(1 - shapes.sum(-1), 0, 1)
    shapes[..., -1] += bare
    colours[..., COLOUR_NAMES.index(scene.background)] += bare
    own = np.stack([centre_x / canvas[1], centre_y / canvas[0]], -1) * 2 - 1
    whole: NDArray[np.float16] = np.concatenate([shapes, colours, own, way], -1).astype(np.float16)
    return whole.reshape(rows * columns, -1)
