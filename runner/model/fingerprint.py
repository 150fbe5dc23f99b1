"""Fingerprints of models: SHA-256 over the names and content hashes of their components' files."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from typing import TYPE_CHECKING

from runner.errors import ModelError
from runner.files.hashes import FileHashes, HashError, identity_of, name_as_hash

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from runner.files.hashes import Identities
    from runner.model.files import ComponentFiles


CHANGED = "the model's files were changed since the run began: run it again"


@contextmanager
def _model_errors() -> Iterator[None]:
    try:
        yield
    except HashError as error:
        raise ModelError(str(error)) from None


@_model_errors()
def fingerprint(files: Iterable[ComponentFiles], *, hash_missing: bool = True) -> str | None:
    """The fingerprint of some components; None if ``hash_missing`` is false and a file is not hashed yet.

    Raises:
        ModelError: a file cannot be read.

    """
    named = {one for f in files for one in f.keyed}
    hashes = _hashes(sorted({path for _, path in named}), hash_missing=hash_missing)
    if hashes is None:
        return None
    lines = sorted(f"{name} {hashes.known(path)}\n" for name, path in named)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@_model_errors()
def content_of(files: ComponentFiles, *, hash_missing: bool = True) -> str | None:
    """The hash of a single file, whatever its name; else as :func:`fingerprint`."""
    (path,) = (files.folder / name for name in files.names)
    hashes = _hashes([path], hash_missing=hash_missing)
    return hashes.known(path) if hashes else None


def _hashes(paths: list[Path], *, hash_missing: bool) -> FileHashes | None:
    """The hashes of files; None if ``hash_missing`` is false and one is not hashed yet."""
    hashes = FileHashes()
    unknown = [path for path in paths if hashes.known(path) is None]
    if unknown and not hash_missing:
        return None
    if unknown:
        hashes.learn(unknown)
    if hash_missing:
        hashes.trust_names(paths)
    return hashes


@_model_errors()
def trust_names(files: Iterable[ComponentFiles]) -> None:
    """Record the current identities of files in the hub's cache, and take their names for their hashes."""
    FileHashes().trust_names([f.folder / name for f in files for name in f.names])


@_model_errors()
def altered(files: Iterable[ComponentFiles]) -> list[str]:
    """Names of files in the hub's cache whose content no longer matches the hashes in their blobs' names.

    Only files whose recorded identity has changed are read.

    Raises:
        ModelError: a file cannot be read.

    """
    hashes = FileHashes()
    paths = {f.folder / name: name for f in files for name in f.names}
    named = {path: name for path, name in paths.items() if name_as_hash(path.resolve())}
    unknown = [path for path in named if hashes.known(path) is None]
    if unknown:
        hashes.learn(unknown)
    return [name for path, name in named.items() if hashes.known(path) != name_as_hash(path.resolve())]


@_model_errors()
def identities(files: Iterable[ComponentFiles]) -> Identities:
    """Sizes, times and inodes of the files of some components; raises as :func:`fingerprint`."""
    return {f.folder / name: identity_of(f.folder / name) for f in files for name in f.names}


@_model_errors()
def refuse_changed(files: Identities) -> None:
    """Check that files are what they were when :func:`identities` looked at them.

    Raises:
        ModelError: one is not.

    """
    if any(identity_of(path) != identity for path, identity in files.items()):
        raise ModelError(CHANGED)
