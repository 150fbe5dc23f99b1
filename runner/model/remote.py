"""Hub models that are not on this machine, as the headers of their files tell them: kilobytes, no weights.

What was read is kept in runner's cache, by repository, commit and file.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.errors import ModelError, RunnerError, StorageError
from runner.header import Header, HeaderError, check_size, header_length, parse_header
from runner.model import hub
from runner.model.files import CONFIG, INDEX, open_component
from runner.model.fingerprint import cache_folder
from runner.model.shapes import ComponentShapes
from runner.storage import write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from runner.api import Component
    from runner.manifest.schema import ModelSource

FIRST = 100_000  # bytes of a weight file that are asked for first: few headers are longer
CONFIG_LIMIT = 1 << 20
WEIGHTS = ".safetensors"
CONFIGS = (CONFIG, "scheduler_config.json")  # a tokenizer's class is in the model's index
_READERS = 4
_PIECE = 16 << 10
_SHARD = re.compile(r"(?P<files>.+)-\d+-of-(?P<count>\d+)\.safetensors")
_TRY_AGAIN = (408, 429)  # answers that are no refusal


def describe(source: ModelSource, components: Sequence[Component]) -> dict[str, ComponentShapes]:
    """Shapes of the components of a hub model, by component name, from headers and configs alone.

    What lies in the hub's cache is read there, what was read before in runner's own. When the hub cannot be
    reached, it is what the hub last said of this revision.

    Raises:
        ModelError: the model is missing, gated, damaged or out of reach, or lacks what the components need.

    """
    folder = hub.cached(source, components)
    if folder is not None:
        return {component.name: open_component(folder, component).shapes for component in components}
    try:
        listing = _listing(source)
        files = {c.name: hub.needed(source, c, list(listing.sizes)) for c in components}
        told = {f"{c.path}/{name}" for c in components for name in CONFIGS}
        names = sorted({n for chosen in files.values() for n in chosen if n.endswith(WEIGHTS) or n in told})
        _check_shards(source, names)
        contents = _contents(source, listing, names)
    except RunnerError:
        raise
    except Exception as error:
        raise hub.explained(source, error) from error
    return {c.name: _shapes(c, files[c.name], contents) for c in components}


def model_index(source: ModelSource) -> dict[str, Any]:
    """A hub model's ``model_index.json``, from this machine where it is here.

    Raises:
        ModelError: the model is missing, gated or out of reach, or has no such table.

    """
    from huggingface_hub import try_to_load_from_cache

    try:
        local = try_to_load_from_cache(source.source, INDEX, revision=source.revision)
        if isinstance(local, str):
            with suppress(ValueError, OSError):
                return dict(json.loads(Path(local).read_bytes()))
        listing = _listing(source)
        found = _contents(source, listing, [INDEX]) if INDEX in listing.sizes else {}
    except RunnerError:
        raise
    except Exception as error:
        raise hub.explained(source, error) from error
    if not found:
        raise ModelError(f"{hub.title(source)} has no {INDEX}; is it in diffusers layout?")
    return dict(found[INDEX])


@functools.cache  # the stages of a manifest share a model: it is asked for once
def _listing(source: ModelSource) -> hub.Listing:
    place = _place(source, "revision", source.revision or "main")
    kept = None
    with suppress(ValueError, TypeError):
        kept = hub.Listing(**json.loads(_kept(place) or b""))
    if kept and kept.commit == source.revision:
        return kept  # what a commit holds never changes
    try:
        listing = hub.listing(source)
    except Exception as error:
        if kept and not _refused(error):
            return kept
        raise
    _keep(place, json.dumps({"commit": listing.commit, "sizes": dict(listing.sizes)}).encode())
    return listing


def _refused(error: Exception) -> bool:
    """Whether the hub has answered, and with a no."""
    status = getattr(getattr(error, "response", None), "status_code", 0)
    return 400 <= status < 500 and status not in _TRY_AGAIN


def _check_shards(source: ModelSource, names: Iterable[str]) -> None:
    shards = [match for match in map(_SHARD.fullmatch, names) if match]
    there = Counter((match["files"], match["count"]) for match in shards)
    for (files, count), found in there.items():
        if found != int(count):
            raise ModelError(f"{hub.title(source)} is incomplete: of {count} files {files}-* it has {found}")


def _shapes(component: Component, names: list[str], contents: Mapping[str, Any]) -> ComponentShapes:
    headers = [contents[name] for name in names if name.endswith(WEIGHTS)]
    tensors = {name: info for header in headers for name, info in header.tensors.items()}
    configs = {
        name: contents[f"{component.path}/{name}"]
        for name in CONFIGS
        if f"{component.path}/{name}" in contents
    }
    return ComponentShapes(component, tensors, configs.pop(CONFIG, {}), tuple(names), configs)


def _contents(source: ModelSource, listing: hub.Listing, names: list[str]) -> dict[str, Any]:
    from huggingface_hub.constants import HF_HUB_DOWNLOAD_TIMEOUT

    works = [functools.partial(_content, source, listing, name) for name in names]
    # a host that takes no connection is tried at each of its addresses
    patience = 3 * HF_HUB_DOWNLOAD_TIMEOUT
    return dict(zip(names, hub.in_threads(works, _READERS, patience), strict=True))


def _content(source: ModelSource, listing: hub.Listing, name: str) -> Header | dict[str, Any]:
    """A weight file's header, or a config; what this machine has of it damaged is as if it were not there."""
    from huggingface_hub import hf_hub_url, try_to_load_from_cache

    size = listing.sizes[name]
    place = _place(source, listing.commit, name)
    local = try_to_load_from_cache(source.source, name, revision=listing.commit)
    with suppress(ValueError, OSError):
        if isinstance(local, str):
            return _parsed(name, _head(functools.partial(_read_local, Path(local)), name, size), size)
    with suppress(ValueError):
        if kept := _kept(place):
            return _parsed(name, kept, size)
    url = hf_hub_url(source.source, name, revision=listing.commit)
    try:
        head = _head(functools.partial(_read, url), name, size)
        content = _parsed(name, head, size)
    except HeaderError as error:
        raise ModelError(f"{hub.title(source)} has a damaged file, {name}: {error}") from None
    _keep(place, head)
    return content


def _head(read: Callable[[int, int], bytes], name: str, size: int | None) -> bytes:
    """All of a file that is no weights; ``read`` is given where to start and where to stop.

    Raises:
        HeaderError: it is cut off, or not what its name says.

    """
    limit = CONFIG_LIMIT if size is None else size
    if not name.endswith(WEIGHTS):
        if limit > CONFIG_LIMIT:
            raise HeaderError(f"it is {size} bytes long, too long for a config")
        return read(0, limit)
    head = read(0, FIRST if size is None else min(FIRST, size))
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


def _place(source: ModelSource, *key: str) -> Path:
    digest = hashlib.sha256("\n".join((source.source, *key)).encode()).hexdigest()
    # names of files are the repository's to choose: none becomes a path here
    return cache_folder() / "headers" / source.source.replace("/", "--") / digest[:40]


def _keep(place: Path, data: bytes) -> None:
    with suppress(StorageError):  # without a cache the next plan asks again
        write_atomically(place, hashlib.sha256(data).digest() + data)


def _kept(place: Path) -> bytes | None:
    try:
        data = place.read_bytes()
    except OSError:
        return None
    return data[32:] if hashlib.sha256(data[32:]).digest() == data[:32] else None
