"""Pictures and clips of items: what is read of them, and what is refused."""

from __future__ import annotations

import io
import subprocess
import sys
import zlib
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import pytest
from PIL import Image
from runner_diffusers.media.clips import read_clip
from runner_diffusers.media.errors import MediaError
from runner_diffusers.media.pictures import read_picture
from runner_diffusers.media.probe import Probe, probe
from runner_diffusers.media.writing import Result, encoded

if TYPE_CHECKING:
    from pathlib import Path

RED, BLUE = (255, 0, 0), (0, 0, 255)


@pytest.fixture
def clip() -> np.ndarray[Any, np.dtype[np.float32]]:
    """Nine frames of 32 x 48, ever brighter, red at the left and green at the right."""
    frames = np.zeros((9, 32, 48, 3), np.float32)
    frames[:, :, :24, 0] = np.linspace(0.3, 1, 9, dtype=np.float32)[:, None, None]
    frames[:, :, 24:, 1] = 0.5
    return frames


def test_pictures_are_rgb_and_masks_grey(tmp_path: Path) -> None:
    Image.new("P", (6, 4)).save(tmp_path / "palette.png")
    Image.new("CMYK", (6, 4)).save(tmp_path / "press.jpg")

    for name in ("palette.png", "press.jpg"):
        read = read_picture(tmp_path / name)
        assert (read.image.mode, read.image.size, read.notes) == ("RGB", (6, 4), ())
        assert read_picture(tmp_path / name, "L").image.mode == "L"
        assert probe(tmp_path / name, "picture") == Probe(6, 4)


def test_what_reading_changes_is_reported(tmp_path: Path) -> None:
    seen = Image.new("RGBA", (4, 2), (*RED, 255))
    seen.putpixel((0, 0), (0, 0, 0, 0))
    seen.save(tmp_path / "glass.png")
    turned = Image.new("RGB", (4, 2), RED)
    turned.putpixel((0, 0), BLUE)
    exif = turned.getexif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    turned.save(tmp_path / "phone.png", exif=exif)
    Image.fromarray(np.full((2, 4), 65535, np.uint16)).save(tmp_path / "deep.png")

    glass, mask, kept = (read_picture(tmp_path / "glass.png", mode) for mode in ("RGB", "L", "RGBA"))
    phone, deep = read_picture(tmp_path / "phone.png"), read_picture(tmp_path / "deep.png")

    assert (glass.image.getpixel((0, 0)), glass.image.getpixel((1, 0))) == ((255, 255, 255), RED)
    assert glass.notes == ("its transparent parts become white",)
    assert (mask.image.getpixel((0, 0)), mask.notes) == (0, ("its transparent parts become black",))
    assert (kept.image.getpixel((0, 0)), kept.notes) == ((0, 0, 0, 0), ())
    assert (phone.image.size, phone.image.getpixel((1, 0))) == ((2, 4), BLUE)
    assert "turned upright" in phone.notes[0]
    assert deep.image.getpixel((0, 0)) == (255, 255, 255)
    assert "16 bits" in deep.notes[0]


def test_pictures_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "words.png").write_text("no picture")
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:4000])
    Image.new("RGB", (4, 4), RED).save(
        tmp_path / "moving.gif", save_all=True, append_images=[Image.new("RGB", (4, 4), BLUE)]
    )
    huge = bytearray((tmp_path / "whole.png").read_bytes())
    huge[16:24] = (20_000).to_bytes(4) * 2  # its header alone says so
    huge[29:33] = zlib.crc32(huge[12:29]).to_bytes(4)
    (tmp_path / "huge.png").write_bytes(huge)

    for name, said in {
        "words.png": "no picture",
        "moving.gif": "2 frames",
        "none.png": "no such file",
        "": "folder",
    }.items():
        with pytest.raises(MediaError, match=said) as caught:
            probe(tmp_path / name, "picture")
        assert str(tmp_path / name) in str(caught.value)
    for name, said in {
        "cut.png": "truncated.*save it anew",
        "moving.gif": "2 frames",
        "words.png": "PNG or JPEG",
    }.items():
        with pytest.raises(MediaError, match=said):
            read_picture(tmp_path / name)
    with pytest.raises(MediaError, match=r"huge\.png: .*pixels: make it smaller"):
        probe(tmp_path / "huge.png", "picture")


@pytest.mark.parametrize("wanted", ["mp4", "gif"])
def test_a_clip_is_read_as_it_was_written(tmp_path: Path, clip: Any, wanted: Any) -> None:
    path = tmp_path / f"clip.{wanted}"
    path.write_bytes(encoded(Result(clip=clip, fps=10), wanted).data)

    read = read_clip(path)

    assert len(read.frames) == 9
    assert read.fps == pytest.approx(10)
    pixels = np.stack([np.asarray(frame) for frame in read.frames])
    middles = pixels[:, 8:24, [12, 36]].mean(axis=1)  # away from the border, where colours are mixed
    np.testing.assert_allclose(middles, clip[:, 16, [12, 36]] * 255, atol=6)
    looked = probe(path, "clip")
    assert (looked.width, looked.height, looked.frames) == (48, 32, 9)


def test_an_animated_webp_is_read_as_a_clip(tmp_path: Path) -> None:
    first, *others = (Image.new("RGB", (48, 32), (shade, 0, 0)) for shade in (0, 120, 240))
    first.save(tmp_path / "a.webp", save_all=True, append_images=others, duration=100, lossless=True)

    read = read_clip(tmp_path / "a.webp")

    assert [frame.getpixel((9, 9)) for frame in read.frames] == [(0, 0, 0), (120, 0, 0), (240, 0, 0)]
    assert read.fps == pytest.approx(10)
    assert probe(tmp_path / "a.webp", "clip").frames == 3


def test_a_video_of_a_telephone_is_turned_upright(tmp_path: Path, clip: Any) -> None:
    data = bytearray(encoded(Result(clip=clip), "mp4").data)
    matrix = data.index(b"tkhd") + 44
    data[matrix : matrix + 36] = b"".join(
        number.to_bytes(4, signed=True)
        for number in (0, 1 << 16, 0, -(1 << 16), 0, 0, 32 << 16, 0, 1 << 30)  # by 90 degrees, clockwise
    )
    (tmp_path / "phone.mp4").write_bytes(data)

    read = read_clip(tmp_path / "phone.mp4")

    assert read.notes == ("it is turned upright, as the file says",)
    assert read.frames[8].size == (32, 48)
    red, green = (read.frames[8].getpixel((16, y)) for y in (8, 40))  # the left is at the top
    np.testing.assert_allclose([red, green], [(255, 0, 0), (0, 128, 0)], atol=6)  # type: ignore[arg-type]


def test_a_folder_of_frames_is_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    (tmp_path / ".hidden").write_text("left alone")
    for number in (1, 2, 10, 9):
        Image.new("RGB", (8, 4), (number, 0, 0)).save(tmp_path / f"frame{number}.png")

    read = read_clip(tmp_path)

    assert [frame.getpixel((0, 0)) for frame in read.frames] == [(number, 0, 0) for number in (1, 2, 9, 10)]
    assert (read.fps, probe(tmp_path, "clip").frames) == (None, 4)


def test_folders_that_are_no_clip(tmp_path: Path) -> None:
    empty, mixed, other = (tmp_path / name for name in ("empty", "mixed", "other"))
    for folder in (empty, mixed, other):
        folder.mkdir()
    Image.new("RGB", (8, 4)).save(mixed / "1.png")
    Image.new("RGB", (8, 6)).save(mixed / "2.png")
    Image.new("RGB", (8, 4)).save(other / "1.png")
    (other / "notes.txt").write_text("no frame")

    for look in (read_clip, lambda path: probe(path, "clip")):
        with pytest.raises(MediaError, match="empty: the folder holds no frames"):
            look(empty)
        with pytest.raises(MediaError, match=r"2\.png: it is 8 x 6, .* 8 x 4: make all of one size"):
            look(mixed)
        with pytest.raises(MediaError, match=r"notes\.txt: this is no picture"):
            look(other)


def test_videos_that_cannot_be_read(tmp_path: Path, clip: Any) -> None:
    whole = encoded(Result(clip=clip), "mp4").data
    (tmp_path / "words.mp4").write_text("no video")
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 4])
    sound = tmp_path / "sound.wav"
    sound.write_bytes(encoded(Result(sound=np.zeros((2, 4_800), np.float32), rate=48_000), "wav").data)

    for name, said in {
        "words.mp4": "damaged, or no video",
        "cut.mp4": "damaged",
        "none.mp4": "no such file",
    }.items():
        with pytest.raises(MediaError, match=rf"{name}: .*{said}"):
            probe(tmp_path / name, "clip")
    with pytest.raises(MediaError, match="no picture in it"):
        probe(sound, "clip")


@pytest.mark.parametrize(
    ("suffix", "kind", "said"), [("mp4", "mp4", "damaged"), ("mkv", "matroska", "cut short, 0.8 of 1.3")]
)
def test_a_video_whose_end_is_missing_is_refused_when_it_is_read(
    tmp_path: Path, suffix: str, kind: str, said: str
) -> None:
    noise = np.random.default_rng(0).random((20, 64, 64, 3), np.float32)
    written: Any = io.BytesIO(encoded(Result(clip=noise), "mp4").data)
    path = tmp_path / f"cut.{suffix}"
    with (
        av.open(written) as file,
        av.open(str(path), "w", format=kind, options={"movflags": "+faststart"}) as out,
    ):
        copy = out.add_stream_from_template(file.streams.video[0])
        for packet in file.demux(file.streams.video[0]):
            if packet.dts is not None:
                packet.stream = copy
                out.mux(packet)
    assert len(read_clip(path).frames) == 20
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])

    assert probe(path, "clip").width == 64  # its headers are all there
    assert 20 <= (probe(path, "clip").frames or 0) <= 22  # of Matroska, by its seconds
    with pytest.raises(MediaError, match=rf"cut\.{suffix}: .*{said}"):
        read_clip(path)


def test_a_look_imports_no_torch_and_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"anything")
    code = f"""
import sys
from importlib.machinery import PathFinder
finds = PathFinder.find_spec
PathFinder.find_spec = classmethod(lambda cls, name, *rest: None if name == "av" else finds(name, *rest))
from pathlib import Path
from runner_diffusers.media.formats import missing
from runner_diffusers.media.probe import probe
assert missing("png") is None
print(missing("mp4"))
try:
    probe(Path({str(tmp_path / "a.mp4")!r}), "clip")
except ValueError as error:
    print(error)
assert "torch" not in sys.modules and "numpy" not in sys.modules
"""

    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout

    assert said.count("pip install 'runner-diffusers[video]'") == 2
