"""The tile size of the decoder, for the worker and for the memory formula: no torch here."""

from __future__ import annotations

UNTILED = 1024 * 1024  # pixels; `auto` tiles larger pictures
TILE = 512  # pixels of a tile's side with `auto`


def tile_size(tiling: str | int, height: int, width: int) -> int | None:
    """Pixels of a tile's side, or None for no tiles; depends on the picture only, never on the budget."""
    if tiling == "auto":
        return TILE if height * width > UNTILED else None
    return None if tiling == "off" else int(tiling)
