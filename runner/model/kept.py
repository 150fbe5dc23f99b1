"""What was read of repositories on the hub, kept in runner's cache: by repository, and what it is of that."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import TYPE_CHECKING

from runner.errors import StorageError
from runner.files.cache import cache_folder
from runner.files.storage import write_atomically

if TYPE_CHECKING:
    from pathlib import Path


def keep(repository: str, key: tuple[str, ...], data: bytes) -> None:
    """Keep bytes for :func:`kept`; without a cache the next plan asks again."""
    with suppress(StorageError):
        write_atomically(_place(repository, key), hashlib.sha256(data).digest() + data)


def kept(repository: str, key: tuple[str, ...]) -> bytes | None:
    """What was kept under this key, if it is as it was."""
    try:
        data = _place(repository, key).read_bytes()
    except OSError:
        return None
    return data[32:] if hashlib.sha256(data[32:]).digest() == data[:32] else None


def _place(repository: str, key: tuple[str, ...]) -> Path:
    digest = hashlib.sha256("\n".join((repository, *key)).encode()).hexdigest()
    # names of files are the repository's to choose: none becomes a path here
    return cache_folder() / "headers" / repository.replace("/", "--") / digest[:40]
