"""A contact sheet: pictures with their captions below."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .scenes import Picture

COLUMNS, SCALE, GAP, LINE = 5, 2, 16, 15  # pixels, but the columns and the scale
TEXT_LINES, TEXT_WIDTH = 3, 42


def contact_sheet(pictures: Sequence[tuple[Picture, str]]) -> Image.Image:
    """The pictures, twice as big, in rows of five."""
    side = SCALE * max(max(picture.shape[:2]) for picture, _ in pictures)
    cell = (side + GAP, side + GAP + TEXT_LINES * LINE)
    rows = -(-len(pictures) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * cell[0] + GAP, rows * cell[1] + GAP), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for index, (picture, caption) in enumerate(pictures):
        left, top = GAP + index % COLUMNS * cell[0], GAP + index // COLUMNS * cell[1]
        image = Image.fromarray(picture)
        image = image.resize((image.width * SCALE, image.height * SCALE), Image.Resampling.NEAREST)
        sheet.paste(image, (left, top))
        text = "\n".join(textwrap.wrap(caption, TEXT_WIDTH)[:TEXT_LINES])
        pen.multiline_text((left, top + image.height + 4), text, fill="black", font=font, spacing=1)
    return sheet
