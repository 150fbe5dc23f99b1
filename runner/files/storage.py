"""Writes files atomically, and opens only regular files: no pipe, device or (to write) symbolic link."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from runner.errors import StorageError
from runner.units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader, BufferedWriter

TEMPORARY = ".tmp"
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1"
# other machines with the same folder have processes with our number
_HOST = re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname())[:40]
# 0 on systems without the flag
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)  # do not block on a pipe, which is refused


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that after any interruption, even a power cut, it is either complete or absent.

    A symbolic link in its place is replaced; its target is not touched. The folder is not synced: a
    rename that is lost costs the work of one item, a sync costs every item.

    Raises:
        StorageError: the disk is full, read-only or failing.

    """
    with storage_errors(path):
        temporary = temporary_of(path)
        try:
            with _open_anew(temporary) as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def temporary_of(path: Path) -> Path:
    """Where this process writes a file before it has its name."""
    return path.with_name(f".{path.name}.{_HOST}.{os.getpid()}{TEMPORARY}")


def _open_anew(path: Path) -> BufferedWriter:
    try:
        return path.open("xb")
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError:  # left by a killed process that had our pid
        path.unlink()
    return path.open("xb")


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


def open_in_place(path: Path, flags: int) -> int:
    """Open a file to be written in place, such as a log or a journal; create it if it is absent.

    ``flags`` are those of ``os.open`` besides ``O_CREAT``.

    Raises:
        StorageError: it cannot be opened, or is a symbolic link: writing would change another file.

    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            raise StorageError(f"cannot write {path}: it is a symbolic link to another file; remove the link")
        # the flag refuses a link that was made after the check
        return _open_regular(str(path), flags | os.O_CREAT | _NO_LINK)


def remove_if_empty(path: Path) -> None:
    """Remove a log that nobody wrote to."""
    with contextlib.suppress(OSError):
        if path.stat().st_size == 0:
            path.unlink()


def open_to_read(path: Path) -> BufferedReader:
    """Open an untrusted path for reading, if it is a regular file.

    Raises:
        OSError: it cannot be opened, or is a pipe or a device, which may have no end.

    """
    return open(path, "rb", opener=_open_regular)


def read_regular(path: Path) -> bytes:
    """Read all of a regular file, with few system calls.

    Raises:
        OSError: as :func:`open_to_read`.

    """
    return read_ends(path, None, 0)[0]


def read_ends(path: Path, first: int | None, last: int) -> tuple[bytes, int, bytes]:
    """Read the first bytes of a regular file (None: all), its size, and its last bytes.

    Raises:
        OSError: as :func:`open_to_read`.

    """
    descriptor = _open_regular(str(path), os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        head = os.pread(descriptor, size if first is None else first, 0)
        end = head[-last:] if len(head) == size else os.pread(descriptor, last, max(0, size - last))
        return head, size, end if last else b""
    finally:
        os.close(descriptor)


def is_lfs_pointer(data: bytes) -> bool:
    """Whether a file's first bytes are a git-lfs pointer's: the file itself was not checked out."""
    return data.startswith(LFS_POINTER)


def refuse_linked_folders(folder: Path) -> None:
    """Check that no folder below ``folder`` is a symbolic link, so that no write leaves it.

    Raises:
        StorageError: one is.

    """
    for within, names, _ in os.walk(folder):
        for name in names:
            path = Path(within, name)
            if path.is_symlink():
                raise StorageError(
                    f"cannot write in {path}: it is a symbolic link to another folder; remove the link, or "
                    f"link the whole of {folder} instead"
                )


def check_room(folder: Path, needed: int, spare: int, subject: str, remedy: str) -> None:
    """Check that a disk has room for ``needed`` more bytes, and for ``spare`` bytes that are to stay free.

    Messages begin with ``subject``, which ends with a verb such as "takes", and end with ``remedy``.

    Raises:
        StorageError: it has not, or cannot be asked.

    """
    with storage_errors(folder):
        free = shutil.disk_usage(folder).free
    if needed + spare > free:
        raise StorageError(
            f"{subject} {format_size(needed)} in {folder}, and {format_size(free)} are free there; "
            f"make room, or {remedy}"
        )


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn an OSError into a StorageError that names the file."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise StorageError(f"cannot write {error.filename2 or error.filename or path}: {reason}") from error


def _open_regular(path: str, flags: int) -> int:
    descriptor = os.open(path, flags | _NO_WAIT, 0o644)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no regular file", path)
    return descriptor
