"""A cache, in runner's cache folder, of data that was read from repositories on the hub."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import TYPE_CHECKING

from runner.errors import StorageError
from runner.files.cache import cache_folder
from runner.files.storage import write_atomically

if TYPE_CHECKING:
    from pathlib import Path


def save(repository: str, key: tuple[str, ...], data: bytes) -> None:
    """Save bytes for :func:`load`; does nothing if the cache cannot be written."""
    with suppress(StorageError):
        write_atomically(_path(repository, key), hashlib.sha256(data).digest() + data)


def load(repository: str, key: tuple[str, ...]) -> bytes | None:
    """The bytes that were saved under this key; None if there are none, or they are damaged."""
    try:
        data = _path(repository, key).read_bytes()
    except OSError:
        return None
    return data[32:] if hashlib.sha256(data[32:]).digest() == data[:32] else None


def _path(repository: str, key: tuple[str, ...]) -> Path:
    # hashed, since file names in a repository are untrusted and must not become paths here
    digest = hashlib.sha256("\n".join((repository, *key)).encode()).hexdigest()
    return cache_folder() / "headers" / repository.replace("/", "--") / digest[:40]
