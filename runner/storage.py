"""Files that are whole or not there: written aside, synced, renamed."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from runner.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TEMPORARY = ".tmp"


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that after any interruption, a power cut too, it is either whole or absent.

    The folder is not synced: a rename that is lost costs the work of one item, a sync costs every item.

    Raises:
        StorageError: the disk is full, read-only or failing.

    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
        temporary.unlink(missing_ok=True)  # of a process with our number that was killed here
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def link(source: Path, target: Path) -> None:
    """Give a file a second name; a copy where the file system has no hard links.

    Raises:
        StorageError: neither could be written.

    """
    with storage_errors(target):
        target.unlink(missing_ok=True)
        try:
            os.link(source, target)
        except OSError:
            write_atomically(target, source.read_bytes())


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn a failing write into the error that users read."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise StorageError(f"cannot write {error.filename or path}: {reason}") from error
