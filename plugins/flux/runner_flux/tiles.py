"""In what pieces a picture is decoded. Read by the worker and by the plan: no torch here."""

from __future__ import annotations

UNTILED = 1024 * 1024  # pixels up to which `auto` decodes in one piece
TILE = 512  # pixels of a side of a tile above that


def tile_size(tiling: str | int, height: int, width: int) -> int | None:
    """Pixels of a side of a tile, None for no tiles; it depends on the picture alone, never on a budget."""
    if tiling == "auto":
        return TILE if height * width > UNTILED else None
    return None if tiling == "off" else int(tiling)
