"""Parameters that are files (:data:`runner.api.InputFile`): where they are, and what they contain."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel

from runner.api.files import InputPath
from runner.errors import PluginError
from runner.files.hashes import HashError, cached_hashes
from runner.files.storage import LFS_POINTER, is_lfs_pointer, read_ends
from runner.manifest.problems import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FILES_LIMIT = 100_000  # in a folder


@cache
def file_parameters(model: type[BaseModel] | None) -> tuple[str, ...]:
    """The parameters of a stage that are files, or lists of them, as users write them.

    Raises:
        PluginError: a parameter is a table that holds a file: where its path starts would not be known.

    """
    found = []
    for name, field in model.model_fields.items() if model else ():
        for part in (*field.metadata, *_parts(field.annotation)):
            if isinstance(part, InputPath):
                found.append(field.alias or name)
            elif isinstance(part, type) and issubclass(part, BaseModel) and _holds_files(part, set()):
                message = (
                    f"the parameter '{name}' holds a file in a table: a file must be a parameter of its own"
                )
                raise PluginError(message)
    return tuple(found)


def _parts(annotation: Any) -> Iterator[Any]:
    """The types in a type, and the metadata of each ``Annotated`` among them."""
    yield annotation
    yield from getattr(annotation, "__metadata__", ())
    for inner in get_args(annotation):
        yield from _parts(inner)


def _holds_files(model: type[BaseModel], seen: set[type]) -> bool:
    """Whether a model has a file in any field; ``seen`` are models that were looked at."""
    if model in seen:
        return False
    seen.add(model)
    parts = [p for field in model.model_fields.values() for p in (*field.metadata, *_parts(field.annotation))]
    return any(
        isinstance(part, InputPath)
        or (isinstance(part, type) and issubclass(part, BaseModel) and _holds_files(part, seen))
        for part in parts
    )


class InputFileFinder:
    """Finds the files that a stage's parameters name; pydantic's validators call it."""

    def __init__(self, folders: Mapping[str, Path]) -> None:
        """``folders`` are where relative paths start, by the model's field."""
        self._folders = folders

    def __call__(self, given: str, field: str | None, *, folder: bool) -> Path:
        """The absolute path of a file that can be used.

        Raises:
            ValueError: there is none, or it cannot be used; the message says why.

        """
        if not given:
            raise ValueError("the path of the file is empty")
        base = self._folders[field or ""]
        path = Path(os.path.abspath(base / os.path.expanduser(given)))  # noqa: PTH100, PTH111 - never raise
        problem = _problem(path, given, folder=folder)
        if problem:
            raise ValueError(problem)
        return path


def _problem(path: Path, given: str, *, folder: bool) -> str:
    """Why a path cannot be used; empty if it can."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            return _problem_of_folder(path) if folder else f"{path} is a folder; give a file in it"
        if not stat.S_ISREG(mode):
            return f"{path} is no regular file, but a pipe or a device"
        head, size, _ = read_ends(path, len(LFS_POINTER), 0)
    except (FileNotFoundError, NotADirectoryError):
        return _absent(path, given, "file or folder" if folder else "file")
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    except ValueError as error:  # a NUL in it
        return f"{given!r} is no path: {error}"
    if is_lfs_pointer(head):
        return f"{path} is a pointer of git-lfs and not the file itself: run `git lfs pull`"
    return "" if size else f"{path} is empty"


def _absent(path: Path, given: str, what: str) -> str:
    if "://" in given:
        return f"'{given}' is a URL, which is not downloaded: give the path of a {what}"
    try:
        beside = [other.name for other in path.parent.iterdir()]
    except OSError:
        beside = []
    return f"there is no {what} {path}{did_you_mean(path.name, beside)}"


def _problem_of_folder(path: Path) -> str:
    try:
        files = _files_in(path)
    except OSError as error:
        return f"{error.filename or path} cannot be read: {error.strerror}"
    if len(files) > FILES_LIMIT:
        return f"{path} holds more than {FILES_LIMIT} files: give a folder with those that are meant alone"
    for file in files:
        if not os.access(file, os.R_OK):
            return f"{file} cannot be read"
    return "" if files else f"{path} has no files in it"


def _files_in(folder: Path) -> list[Path]:
    """All files in a folder and the folders below it, one more than ``FILES_LIMIT`` at most.

    Raises:
        OSError: one of them cannot be read, is no regular file, or is a link to a folder.

    """
    found: list[Path] = []
    for within, folders, files in os.walk(folder, onerror=_raise):
        folders.sort()
        for name in folders:
            if os.path.islink(os.path.join(within, name)):  # noqa: PTH114, PTH118
                raise OSError(0, "it is a link to another folder", os.path.join(within, name))  # noqa: PTH118
        found += [Path(within, name) for name in sorted(files)]
        if len(found) > FILES_LIMIT:
            return found[: FILES_LIMIT + 1]
    for path in found:
        if not path.is_file():
            raise OSError(0, "it is no regular file", str(path))
    return found


def _raise(error: OSError) -> None:
    raise error


def content_of(path: Path) -> str:
    """What stands for a file in keys: the hash of its content, or of the names and contents in a folder.

    Raises:
        HashError: a file cannot be read.

    """
    hashes = cached_hashes()
    if not path.is_dir():
        return f"sha256:{hashes.digest(path)}"
    try:
        files = _files_in(path)
    except OSError as error:
        raise HashError(f"{error.filename or path} cannot be read: {error.strerror}") from None
    lines = sorted(f"{json.dumps(f.relative_to(path).as_posix())} {hashes.digest(f)}\n" for f in files)
    return f"folder-sha256:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"
