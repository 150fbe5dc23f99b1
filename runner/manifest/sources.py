"""How a model's source is written: as a hub id, a folder, or a folder in a plugin's package."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runner.manifest.schema import ModelSource

PLUGIN = "plugin:"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
REVISION = re.compile(r"\w[\w.+@/-]*")
FOLDER = re.compile(r"[./~\\]|[A-Za-z]:[/\\]")

_HUB_URL = re.compile(
    rf"(?:(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/|hf:(?://)?)(?P<id>{HUB_ID.pattern})"
    r"(?:/(?:tree|blob|resolve)/(?P<revision>[^/?#]+)(?P<file>/[^?#]+)?)?/?(?:[?#].*)?"
)
_WINDOWS = re.compile(r"[A-Za-z]:[/\\]|\\\\")
_GGUF = ".gguf"
_SINGLE_FILES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")


def is_hub_id(source: str) -> bool:
    return not source.startswith(PLUGIN) and FOLDER.match(source) is None


def check_source(source: ModelSource, base: Path) -> str | None:
    """What is wrong with how a source is written, or None; ``base`` is where relative folders start."""
    if is_hub_id(source.source):
        if not HUB_ID.fullmatch(source.source):
            return f"'{source.source}' is no model source: {_meant(source.source, base)}"
        if source.revision is not None and not _is_revision(source.revision):
            return f"{source.revision!r} is no revision: it is a branch, a tag or a commit on the hub"
        return None
    if source.revision is not None:
        return "only a model on the hub has a revision"
    name, _, inner = source.source.removeprefix(PLUGIN).partition("/")
    packaged = source.source.startswith(PLUGIN)
    path = PurePosixPath(inner)
    if packaged and (not name or not inner or path.is_absolute() or ".." in path.parts):
        return f"'{source.source}' is no packaged model: write plugin:NAME/FOLDER"
    return None


def path_of(source: str, base: Path) -> Path:
    """The path that a source means if it is one of a folder."""
    return Path(os.path.abspath(base / os.path.expanduser(source)))  # noqa: PTH100, PTH111


def mistaken_hub_id(source: ModelSource, base: Path) -> str | None:
    """What is wrong with a source that has the form of a hub id, and is the path of a file or of something
    beside the manifest; a revision says that it is none.
    """
    path = path_of(source.source, base)
    if source.revision is not None:
        return None
    if path.is_file() or path.suffix.lower() in (*_SINGLE_FILES, _GGUF):
        return no_folder(path, source.source)
    if not path.exists():
        return None
    return (
        f"'{source.source}' is a hub id as it is written, and lies beside the manifest: write "
        f'"./{source.source}" for that, or give a `revision` such as "main" for the model on the hub'
    )


def no_folder(path: Path, source: str) -> str:
    """Why there is no model folder at a path, and what to do."""
    if path.suffix.lower() == _GGUF:
        return f"{path} is a GGUF file, which cannot be loaded: {_FOLDER_MEANT}"
    if path.is_file() or path.suffix.lower() in _SINGLE_FILES:
        return (
            f"{path} is a single file, and not a model folder: {_FOLDER_MEANT}. diffusers can make one: "
            'PIPELINE.from_single_file("FILE").save_pretrained("FOLDER")'
        )
    missing = f"there is no model folder {path} (the manifest's source is '{source}')"
    if _WINDOWS.match(source):
        return f"{missing}: that is a path of Windows, and here paths are written /like/this"
    return missing


_FOLDER_MEANT = "a model is a folder in diffusers layout, with a sub-folder for each component, or a hub id"


def _meant(source: str, base: Path) -> str:
    """What a source that is none was meant as."""
    if url := _HUB_URL.fullmatch(source):
        if url["file"]:
            return f'that is one file: write "{url["id"]}" for the whole model, if it is in diffusers layout'
        revision = url["revision"] if url["revision"] not in (None, "main") else None
        more = f' and `revision = "{revision}"`' if revision else ""
        return f'write "{url["id"]}"{more}'
    if source.startswith("file://"):
        return f'write "{source.removeprefix("file://")}"'
    if "://" in source:
        return "a model is loaded from no URL: download it, and write the folder, starting with ./, / or ~"
    posix = source.replace("\\", "/")
    if os.path.exists(base / posix):  # noqa: PTH110
        return f'write "./{posix}" for what lies beside the manifest'
    if source.startswith("$"):
        return "variables are not expanded: write the path itself, or ~ for your home"
    return (
        "a hub id is OWNER/NAME, a folder starts with ./, / or ~, a packaged model is plugin:NAME/FOLDER"
        + ("; folders are written with /" if "\\" in source else "")
    )


def _is_revision(name: str) -> bool:
    """Whether git could have it as a name; the hub's client makes a path of it."""
    return bool(REVISION.fullmatch(name)) and ".." not in name
