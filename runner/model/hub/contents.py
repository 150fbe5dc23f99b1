"""Reads headers and JSON tables, without weights, of hub models that are not on this machine.

They are kept in runner's cache, by repository, commit and file. Files are read with range requests of our
own: HfFileSystem lists each folder first, and reads a whole file if a server ignores ranges.
"""

from __future__ import annotations

import functools
import json
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.errors import ModelError
from runner.files.gguf import IncompleteError, parse_gguf
from runner.files.header import (
    Header,
    HeaderError,
    UnreadFormatError,
    check_size,
    header_length,
    parse_header,
)
from runner.files.storage import is_lfs_pointer
from runner.model.files import TABLE_LIMIT
from runner.model.hub import cache
from runner.model.hub.errors import title
from runner.model.hub.threads import in_threads
from runner.model.selection import GGUF, WEIGHTS, path_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from runner.api import Component
    from runner.manifest.schema import Source
    from runner.model.hub.listing import Listing

FIRST = 100_000  # bytes of a weight file that are requested first: few headers are longer
_READERS = 4
_PIECE = 16 << 10  # bytes
_POINTER = "it is a git-lfs pointer that was uploaded instead of the file itself"

Content = Header | dict[str, Any]


@dataclass(frozen=True)
class RemoteFolder:
    """The files of a component's folder in a repository: the ``Contents`` of a selection."""

    source: Source
    listing: Listing
    component: Component

    @property
    def title(self) -> str:
        return f"{title(self.source)}, folder '{self.component.path}',"

    def table(self, name: str) -> dict[str, Any]:
        content = content_of(self.source, self.listing, path_of(self.component, name))
        return content if isinstance(content, dict) else {}

    def header(self, name: str) -> Header:
        content = content_of(self.source, self.listing, path_of(self.component, name))
        return content if isinstance(content, Header) else Header({}, {}, 0)


def contents(source: Source, listing: Listing, names: Sequence[str]) -> dict[str, Content]:
    """Headers of weight files and JSON tables, by their paths in the repository.

    Raises:
        ModelError: a file is damaged, or cannot be loaded.
        Exception: errors of the hub's client.

    """
    from huggingface_hub.constants import HF_HUB_DOWNLOAD_TIMEOUT

    calls = [functools.partial(content_of, source, listing, name) for name in names]
    # an unreachable host is tried at each of its addresses
    timeout = 3 * HF_HUB_DOWNLOAD_TIMEOUT
    return dict(zip(names, in_threads(calls, _READERS, timeout), strict=True))


def content_of(source: Source, listing: Listing, name: str) -> Content:
    """The header or table of one file: from the hub's cache, runner's own, or the hub; raises as above.

    Damaged files in the caches are ignored.
    """
    from huggingface_hub import hf_hub_url, try_to_load_from_cache

    size = listing.sizes[name]
    key = (listing.commit, name)
    local = try_to_load_from_cache(source.source, name, revision=listing.commit)
    with suppress(ValueError, OSError):
        if isinstance(local, str):
            return _parsed(name, _head(functools.partial(_read_local, Path(local)), name, size), size)
    with suppress(ValueError):
        if known := cache.load(source.source, key):
            return _parsed(name, known, size)
    url = hf_hub_url(source.source, name, revision=listing.commit)
    try:
        head = _head(functools.partial(_read, url), name, size)
        content = _parsed(name, head, size)
    except UnreadFormatError as error:
        raise ModelError(f"{title(source)}: {name} cannot be loaded: {error}") from None
    except HeaderError as error:
        raise ModelError(f"{title(source)} has a damaged file, {name}: {error}") from None
    cache.save(source.source, key, head)
    return content


def _head(read: Callable[[int, int], bytes], name: str, size: int | None) -> bytes:
    """A weight file's start with its header, or the whole of another file; ``read`` takes start and stop.

    Raises:
        HeaderError: it is cut off, too long, or a git-lfs pointer.

    """
    limit = TABLE_LIMIT if size is None else size
    if name.endswith(GGUF):
        return _gguf_head(read, limit)
    if not name.endswith(WEIGHTS):
        if limit > TABLE_LIMIT:
            raise HeaderError(f"it is {size} bytes long, too long for a config")
        return read(0, limit)
    head = read(0, FIRST if size is None else min(FIRST, size))
    if is_lfs_pointer(head):
        raise HeaderError(_POINTER)
    end = 8 + header_length(head, size)
    if end > len(head):
        head += read(len(head), end)
    return head[:end]


def _gguf_head(read: Callable[[int, int], bytes], size: int) -> bytes:
    """A GGUF file's start with its header, whose length is known when it has been read."""
    head = b""
    while True:
        more = read(len(head), min(size, max(FIRST, 2 * len(head))))
        head += more
        try:
            parse_gguf(head, size)
        except IncompleteError:
            if more:
                continue
            raise
        return head


def _parsed(name: str, head: bytes, size: int | None) -> Content:
    if name.endswith(GGUF):
        return parse_gguf(head, len(head) if size is None else size)
    if name.endswith(WEIGHTS):
        header = parse_header(head[8:])
        if size is not None:
            check_size(header, size)
        return header
    if is_lfs_pointer(head):
        raise HeaderError(_POINTER)
    try:
        table = json.loads(head)
    except (ValueError, RecursionError):
        table = None
    if not isinstance(table, dict):
        raise HeaderError("not a JSON table")
    return table


def _read_local(path: Path, start: int, stop: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(stop - start)


def _read(url: str, start: int, stop: int) -> bytes:
    """A range of bytes of a file on the hub; a server that ignores the range is not read to the end."""
    import huggingface_hub.utils

    client: Any = huggingface_hub.utils  # few of its names are marked as exported
    if stop <= start:
        return b""
    headers = {
        **client.build_hf_headers(),
        "Range": f"bytes={start}-{stop - 1}",
        "Accept-Encoding": "identity",  # a range of a compressed body is of no use
    }
    data = bytearray()
    with _response(url, headers) as (response, pieces):
        client.hf_raise_for_status(response)
        first = 0 if response.status_code == 206 else start
        end = first + stop - start
        for piece in pieces:
            data += piece
            if len(data) >= end:
                break
    return bytes(data[first:end])


@contextmanager
def _response(url: str, headers: Mapping[str, str]) -> Iterator[tuple[Any, Iterable[bytes]]]:
    """The hub's response and its body in pieces."""
    import huggingface_hub
    from huggingface_hub.constants import HF_HUB_DOWNLOAD_TIMEOUT

    session: Any = huggingface_hub.get_session()
    options: dict[str, Any] = {"headers": headers, "timeout": HF_HUB_DOWNLOAD_TIMEOUT}
    if callable(session.stream):
        with session.stream("GET", url, **options) as response:
            yield response, response.iter_bytes(_PIECE)
    else:  # huggingface_hub before 1.0 uses requests
        with session.get(url, stream=True, **options) as response:
            yield response, response.iter_content(_PIECE)
