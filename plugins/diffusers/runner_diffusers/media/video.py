"""Clips as mp4: H.264 in the colours of BT.709, with AAC where there is sound."""

from __future__ import annotations

import io
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from runner_diffusers.media.errors import MediaError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CRF = 16  # visually lossless, as x264 says; a lower number is a larger file
THREADS = 4  # x264's bytes depend on the number
BITS = 192_000  # a second, of the sound
_BT709, _LIMITED = 1, 1  # AVCOL_SPC_BT709 and the like, AVCOL_RANGE_MPEG


def mp4(
    frames: NDArray[np.uint8], fps: float, sound: NDArray[np.float32] | None, rate: int, comment: str
) -> tuple[bytes, tuple[str, ...]]:
    """The file and what it does not hold as it was made.

    Odd heights and widths are padded by a row or column, as H.264 has its colours in squares of 2 x 2.

    Raises:
        MediaError: the sound has channels or a rate that AAC has not.

    """
    import av
    import numpy as np

    _, height, width, channels = frames.shape
    if channels == 1:
        frames = np.repeat(frames, 3, axis=-1)
    elif channels != 3:
        raise MediaError(f"mp4 holds clips of 3 channels, and this has {channels}: set safetensors")
    notes = []
    if height % 2 or width % 2:
        frames = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        notes.append(
            f"the clip is {width} x {height}, and in the mp4 {width + width % 2} x {height + height % 2}: "
            "H.264 holds even sizes"
        )
    file = io.BytesIO()
    with av.open(file, "w", format="mp4", options={"fflags": "+bitexact"}) as out:
        out.metadata["comment"] = comment
        video = _video_stream(out, frames.shape[2], frames.shape[1], fps)
        audio = None if sound is None else _audio_stream(out, sound, rate)
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
            frame.pts, frame.time_base = number, video.codec_context.time_base
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        if audio is not None and sound is not None:
            _mux_sound(out, audio, sound, rate)
            if (over := int((np.abs(sound) > 1).sum())) > 0:
                notes.append(f"{over:,} samples of the sound are louder than 1, and may be cut")
    return file.getvalue(), tuple(notes)


def _video_stream(out: Any, width: int, height: int, fps: float) -> Any:
    rate = Fraction(fps).limit_denominator(1001)
    stream = out.add_stream("libx264", rate=rate, options={"crf": str(CRF), "preset": "medium"})
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    context = stream.codec_context
    context.thread_count = THREADS
    context.time_base = 1 / rate
    context.colorspace = context.color_primaries = context.color_trc = _BT709
    context.color_range = _LIMITED
    return stream


def _audio_stream(out: Any, sound: NDArray[np.float32], rate: int) -> Any:
    import av
    import numpy as np

    if not np.isfinite(sound).all():
        raise MediaError("the sound has numbers that are not finite: decode in float32")
    layout = {1: "mono", 2: "stereo"}.get(len(sound))
    if layout is None:
        raise MediaError(f"mp4 takes sound of 1 or 2 channels, and this has {len(sound)}: set safetensors")
    rates = av.Codec("aac", "w").audio_rates
    if rates and rate not in rates:
        raise MediaError(f"AAC in mp4 knows no sound of {rate} samples a second: set safetensors")
    stream = out.add_stream("aac", rate=rate, layout=layout)
    stream.codec_context.bit_rate = BITS
    return stream


def _mux_sound(out: Any, stream: Any, sound: NDArray[np.float32], rate: int) -> None:
    import av
    import numpy as np

    layout = "mono" if len(sound) == 1 else "stereo"
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound, np.float32), format="fltp", layout=layout)
    frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
    out.mux(stream.encode(frame))
    out.mux(stream.encode(None))
