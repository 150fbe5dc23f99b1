"""Sound of items, as float arrays."""

from __future__ import annotations

import wave
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runner_diffusers.media.containers import opened_container, stream_of, while_decoding
from runner_diffusers.media.errors import MediaError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Sound:
    samples: NDArray[np.float32]
    """(channels, samples), from -1 to 1."""
    rate: int
    """Samples a second."""


def read_sound(path: Path) -> Sound:
    """Read a sound file: PCM in WAV by itself, all else through PyAV.

    Raises:
        MediaError: it cannot be read, or holds no sound.

    """
    sound = _pcm(path) or _decoded(path)
    if sound.samples.shape[-1] == 0:
        raise MediaError(f"{path}: the sound is empty")
    return sound


@dataclass(frozen=True)
class PcmHeader:
    """The header of a WAV with PCM."""

    width: int
    """Bytes a number."""
    channels: int
    rate: int
    """Samples a second."""
    samples: int
    """Of each channel."""


def pcm_header(path: Path) -> PcmHeader | None:
    """The header of a WAV that can be read without PyAV; None of all other files."""
    try:
        with wave.open(str(path)) as file:
            width, channels = file.getsampwidth(), file.getnchannels()
            found = PcmHeader(width, channels, file.getframerate(), file.getnframes())
    except (wave.Error, EOFError, OSError):
        return None
    return found if width in {1, 2, 4} else None


def _pcm(path: Path) -> Sound | None:
    import numpy as np

    header = pcm_header(path)
    if header is None:
        return None
    with wave.open(str(path)) as file:
        data = file.readframes(header.samples)
    width = header.width
    if len(data) < header.samples * header.channels * width:
        raise MediaError(f"{path}: it is cut short: copy or convert it anew")
    if width == 1:  # the only width without a sign
        values = np.frombuffer(data, np.uint8).astype(np.float32) / 128 - 1
    else:
        values = np.frombuffer(data, f"<i{width}").astype(np.float32) / 2 ** (8 * width - 1)
    return Sound(np.ascontiguousarray(values.reshape(-1, header.channels).T), header.rate)


def _decoded(path: Path) -> Sound:
    import numpy as np

    with opened_container(path) as container, while_decoding(path):
        import av

        stream: Any = stream_of(path, container, "audio")
        floats = av.AudioResampler(format="fltp")
        parts = [part.to_ndarray() for frame in container.decode(stream) for part in floats.resample(frame)]
        if not parts:
            raise MediaError(f"{path}: the sound is empty")
        return Sound(np.concatenate(parts, axis=1).astype(np.float32, copy=False), int(stream.rate))
