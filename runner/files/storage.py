"""Files that are whole or not there, and that lie where their path says."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from runner.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader, BufferedWriter

TEMPORARY = ".tmp"
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1"
# systems that lack one have no use for it
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)  # a pipe at the file's place is refused, not waited for


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that after any interruption, a power cut too, it is either whole or absent.

    A symbolic link in its place is replaced, and what it points to left alone. The folder is not synced: a
    rename that is lost costs the work of one item, a sync costs every item.

    Raises:
        StorageError: the disk is full, read-only or failing.

    """
    with storage_errors(path):
        temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
        try:
            with _open_anew(temporary) as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _open_anew(path: Path) -> BufferedWriter:
    try:
        return path.open("xb")
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError:  # of a process with our number that was killed here
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
    """A descriptor of a file that is written where it lies: a log, a journal. It is made if it is not there.

    ``flags`` are those of ``os.open`` besides ``O_CREAT``.

    Raises:
        StorageError: it cannot be opened, or is a symbolic link: writing would change another file.

    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            raise StorageError(f"cannot write {path}: it is a symbolic link to another file; remove the link")
        # the flag closes the gap between look and leap
        return _open_regular(str(path), flags | os.O_CREAT | _NO_LINK)


def remove_if_empty(path: Path) -> None:
    """Remove a log that nobody wrote to."""
    with contextlib.suppress(OSError):
        if path.stat().st_size == 0:
            path.unlink()


def open_to_read(path: Path) -> BufferedReader:
    """Open a file whose content others chose: it may be anything, but it is a file.

    Raises:
        OSError: it cannot be opened, or is a pipe or a device, which may have no end.

    """
    return open(path, "rb", opener=_open_regular)


def read_regular(path: Path) -> bytes:
    """All of such a file, in as few calls to the system as can be.

    Raises:
        OSError: as :func:`open_to_read`.

    """
    return read_ends(path, None, 0)[0]


def read_ends(path: Path, first: int | None, last: int) -> tuple[bytes, int, bytes]:
    """The first bytes of such a file (None: all), its size, and its last bytes.

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
    """Whether a file that begins so is a pointer of git-lfs: the file itself was not checked out."""
    return data.startswith(LFS_POINTER)


def refuse_linked_folders(folder: Path) -> None:
    """See that no folder below ``folder`` is a symbolic link, so that what is written in it stays in it.

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


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn a failing write into the error that users read."""
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
