"""Video and sound files through PyAV, with errors that name the file."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from runner_diffusers.media.errors import MediaError
from runner_diffusers.media.formats import VIDEO_EXTRA, has_video

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def opened_container(path: Path) -> Iterator[Any]:
    """A file whose headers have been read.

    Raises:
        MediaError: PyAV is not installed, or cannot read it.

    """
    if not path.is_file():
        raise MediaError(f"{path}: there is no such file")
    if not has_video():
        raise MediaError(f"{path}: reading it needs PyAV: {VIDEO_EXTRA}")
    import av

    try:
        container = av.open(str(path))
    except (av.FFmpegError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MediaError(
            f"{path}: it is damaged, or no video or sound that FFmpeg can read ({reason}): convert it anew"
        ) from error
    with container:
        yield container


@contextmanager
def while_decoding(path: Path) -> Iterator[None]:
    """Errors of decoding as errors of this file."""
    import av

    try:
        yield
    except (av.FFmpegError, EOFError) as error:
        raise MediaError(f"{path}: it is damaged ({error}): convert it anew") from error


def stream_of(path: Path, container: Any, kind: Literal["video", "audio"]) -> Any:
    """The first stream of a kind.

    Raises:
        MediaError: there is none.

    """
    streams = getattr(container.streams, kind)
    if not streams:
        raise MediaError(f"{path}: there is no {'picture' if kind == 'video' else 'sound'} in it")
    return streams[0]
