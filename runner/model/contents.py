"""Files of a hub model that is not on this machine: their headers and tables, and no weights.

What was read is kept in runner's cache, by repository, commit and file.
"""

from __future__ import annotations

import functools
import json
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.errors import ModelError
from runner.files.header import Header, HeaderError, UnreadDtypeError, check_size, header_length, parse_header
from runner.files.storage import is_lfs_pointer
from runner.model.files import TABLE_LIMIT
from runner.model.hub_errors import title
from runner.model.kept import keep, kept
from runner.model.selection import WEIGHTS
from runner.model.threads import in_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from runner.manifest.schema import ModelSource
    from runner.model.listing import Listing

FIRST = 100_000  # bytes of a weight file that are asked for first: few headers are longer
_READERS = 4
_PIECE = 16 << 10
_POINTER = "it is a pointer of git-lfs that was uploaded in the place of the file itself"

Content = Header | dict[str, Any]


@dataclass(frozen=True)
class RemoteFolder:
    """Contents of a component's folder in a repository."""

    source: ModelSource
    listing: Listing
    folder: str

    @property
    def title(self) -> str:
        return f"{title(self.source)}, folder '{self.folder}',"

    def table(self, name: str) -> dict[str, Any]:
        content = content_of(self.source, self.listing, f"{self.folder}/{name}")
        return content if isinstance(content, dict) else {}

    def header(self, name: str) -> Header:
        content = content_of(self.source, self.listing, f"{self.folder}/{name}")
        return content if isinstance(content, Header) else Header({}, {}, 0)


def contents(source: ModelSource, listing: Listing, names: Sequence[str]) -> dict[str, Content]:
    """Headers of weight files and JSON tables, by their paths in the repository.

    Raises:
        ModelError: a file is damaged, or cannot be loaded.
        Exception: the client's errors.

    """
    from huggingface_hub.constants import HF_HUB_DOWNLOAD_TIMEOUT

    works = [functools.partial(content_of, source, listing, name) for name in names]
    # a host that takes no connection is tried at each of its addresses
    patience = 3 * HF_HUB_DOWNLOAD_TIMEOUT
    return dict(zip(names, in_threads(works, _READERS, patience), strict=True))


def content_of(source: ModelSource, listing: Listing, name: str) -> Content:
    """One of them; what this machine has of it damaged is as if it were not there."""
    from huggingface_hub import hf_hub_url, try_to_load_from_cache

    size = listing.sizes[name]
    place = (listing.commit, name)
    local = try_to_load_from_cache(source.source, name, revision=listing.commit)
    with suppress(ValueError, OSError):
        if isinstance(local, str):
            return _parsed(name, _head(functools.partial(_read_local, Path(local)), name, size), size)
    with suppress(ValueError):
        if known := kept(source.source, place):
            return _parsed(name, known, size)
    url = hf_hub_url(source.source, name, revision=listing.commit)
    try:
        head = _head(functools.partial(_read, url), name, size)
        content = _parsed(name, head, size)
    except UnreadDtypeError as error:
        raise ModelError(f"{title(source)}: {name} cannot be loaded: {error}") from None
    except HeaderError as error:
        raise ModelError(f"{title(source)} has a damaged file, {name}: {error}") from None
    keep(source.source, place, head)
    return content


def _head(read: Callable[[int, int], bytes], name: str, size: int | None) -> bytes:
    """All of a file that is no weights; ``read`` is given where to start and where to stop.

    Raises:
        HeaderError: it is cut off, or not what its name says.

    """
    limit = TABLE_LIMIT if size is None else size
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


def _parsed(name: str, head: bytes, size: int | None) -> Header | dict[str, Any]:
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
    """Bytes of a file on the hub. No more are taken, even from a server that ignores the range."""
    import huggingface_hub.utils

    client: Any = huggingface_hub.utils  # it says of few of its names that others may use them
    if stop <= start:
        return b""
    headers = {
        **client.build_hf_headers(),
        "Range": f"bytes={start}-{stop - 1}",
        "Accept-Encoding": "identity",  # what is packed on the way cannot be had in parts
    }
    data = bytearray()
    with _answer(url, headers) as (response, pieces):
        client.hf_raise_for_status(response)
        skipped = 0 if response.status_code == 206 else start
        wanted = skipped + stop - start
        for piece in pieces:
            data += piece
            if len(data) >= wanted:
                break
    return bytes(data[skipped:wanted])


@contextmanager
def _answer(url: str, headers: Mapping[str, str]) -> Iterator[tuple[Any, Iterable[bytes]]]:
    """The hub's answer before its body has come, and the body piece by piece."""
    import huggingface_hub
    from huggingface_hub.constants import HF_HUB_DOWNLOAD_TIMEOUT

    session: Any = huggingface_hub.get_session()
    options: dict[str, Any] = {"headers": headers, "timeout": HF_HUB_DOWNLOAD_TIMEOUT}
    if callable(session.stream):
        with session.stream("GET", url, **options) as response:
            yield response, response.iter_bytes(_PIECE)
    else:  # before version 1.0 the client used requests
        with session.get(url, stream=True, **options) as response:
            yield response, response.iter_content(_PIECE)
