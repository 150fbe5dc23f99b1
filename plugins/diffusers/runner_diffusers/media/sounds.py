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


def is_pcm(path: Path) -> bool:
    """Whether it is a WAV that needs no PyAV."""
    try:
        with wave.open(str(path)) as file:
            return file.getsampwidth() in {1, 2, 4}
    except (wave.Error, EOFError, OSError):
        return False


def _pcm(path: Path) -> Sound | None:
    import numpy as np

    if not is_pcm(path):
        return None
    with wave.open(str(path)) as file:
        width, channels, rate, count = (
            file.getsampwidth(),
            file.getnchannels(),
            file.getframerate(),
            file.getnframes(),
        )
        data = file.readframes(count)
    if len(data) < count * channels * width:
        raise MediaError(f"{path}: it is cut short: copy or convert it anew")
    if width == 1:  # the only width without a sign
        values = np.frombuffer(data, np.uint8).astype(np.float32) / 128 - 1
    else:
        values = np.frombuffer(data, f"<i{width}").astype(np.float32) / 2 ** (8 * width - 1)
    return Sound(np.ascontiguousarray(values.reshape(-1, channels).T), rate)


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
