"""Pictures of items, as PIL images."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from runner_diffusers.media.errors import MediaError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from PIL import Image

Mode: TypeAlias = Literal["RGB", "RGBA", "L"]
_ORIENTATION = 0x0112  # tag of EXIF
_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")
_DEEP = ("I;16", "I;16L", "I;16B", "I;16N", "I")


@dataclass(frozen=True)
class Picture:
    image: Image.Image
    notes: tuple[str, ...]
    """What was changed on reading, for the user."""


def read_picture(path: Path, mode: Mode = "RGB") -> Picture:
    """Read a picture, turned upright: as RGB, a mask as L, or as RGBA to keep its transparency.

    Raises:
        MediaError: it cannot be read, or is no single picture.

    """
    with opened(path) as image:
        return Picture(as_mode(image, mode), notes_of(image, mode))


@contextmanager
def opened(path: Path, *, animated: bool = False) -> Iterator[Image.Image]:
    """A picture whose header has been read; its pixels are read when they are used."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if not animated:
                    _refuse_animated(path, image)
                yield image
    except MediaError:
        raise
    except FileNotFoundError:
        raise MediaError(f"{path}: there is no such file") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        limit = f"{Image.MAX_IMAGE_PIXELS or 0:,}"
        raise MediaError(f"{path}: it has more than {limit} pixels: make it smaller") from None
    except UnidentifiedImageError:
        raise MediaError(f"{path}: this is no picture that Pillow can read: save it as PNG or JPEG") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise MediaError(f"{path}: it cannot be read ({error}): save it anew, as PNG or JPEG") from error


def _refuse_animated(path: Path, image: Image.Image) -> None:
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # cameras' JPEG with a preview beside the picture
        raise MediaError(f"{path}: it has {frames} frames, and one picture is wanted: save one of them")


def notes_of(image: Image.Image, mode: Mode = "RGB") -> tuple[str, ...]:
    """What reading changes, from the header."""
    notes = []
    if image.getexif().get(_ORIENTATION, 1) != 1:
        notes.append("it is turned upright, as its EXIF orientation says")
    if has_alpha(image) and mode != "RGBA":
        notes.append(f"its transparent parts become {'black' if mode == 'L' else 'white'}")
    if image.mode in _DEEP:
        notes.append("its 16 bits a channel become 8")
    return tuple(notes)


def has_alpha(image: Image.Image) -> bool:
    return image.mode in _ALPHA or "transparency" in image.info


def as_mode(image: Image.Image, mode: Mode) -> Image.Image:
    """The pixels, upright, in 8 bits. What is transparent lies on white, of L on black; RGBA keeps it."""
    from PIL import Image, ImageOps

    upright = ImageOps.exif_transpose(image)
    if upright.mode in _DEEP:  # convert() would cut values over 255
        return upright.convert("I").point(lambda value: value * (1 / 257)).convert("L").convert(mode)
    if has_alpha(upright) and mode != "RGBA":
        ground = Image.new("RGBA", upright.size, "black" if mode == "L" else "white")
        upright = Image.alpha_composite(ground, upright.convert("RGBA"))
    return upright.convert(mode)
