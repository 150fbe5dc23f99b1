"""The syntax of sources of models, parts and adapters: a hub id, a path, a folder in a plugin's package."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from runner.manifest.schema import PartSource

if TYPE_CHECKING:
    from runner.manifest.schema import ModelSource, Source

PLUGIN = "plugin:"
LORA_WEIGHTS = "lora_weights"
"""The field of an item with weights of its own, by the adapters' names."""
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
REVISION = re.compile(r"\w[\w.+@/-]*")
FOLDER = re.compile(r"[./~\\]|[A-Za-z]:[/\\]")

_HUB_URL = re.compile(
    rf"(?:(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/|hf:(?://)?)(?P<id>{HUB_ID.pattern})"
    r"(?:/(?:tree|blob|resolve)/(?P<revision>[^/?#]+)(?P<file>/[^?#]+)?)?/?(?:[?#].*)?"
)
_PART = re.compile(r"(?P<source>[^@:]+)(@(?P<revision>[^:]*))?(:(?P<subfolder>(?!//).*))?")
_WINDOWS = re.compile(r"[A-Za-z]:[/\\]|\\\\")
_GGUF = ".gguf"
_WEIGHTS = (".safetensors", _GGUF)
_PICKLES = (".ckpt", ".pt", ".pth", ".bin")
_SINGLE_FILES = (*_WEIGHTS, *_PICKLES)


def is_hub_id(source: str) -> bool:
    """Whether a source is neither a packaged model nor a folder."""
    return not source.startswith(PLUGIN) and FOLDER.match(source) is None


def part_source(model: ModelSource, component: str) -> PartSource | None:
    """The source that ``[model.components]`` names for a component; None if it is the model's own."""
    written = model.components.get(component)
    if written is None:
        return None
    place = _PART.fullmatch(written) if is_hub_id(written) and not _HUB_URL.fullmatch(written) else None
    found = place.groupdict() if place else {"source": written}
    inside = found.get("subfolder")
    if inside and _is_file(inside):
        found = {**found, "subfolder": None, "file": inside}
    elif not is_hub_id(written) and _is_file(written):
        folder, _, name = written.rpartition("/")
        found = {"source": folder or "/", "file": name}
    return PartSource(component=component, variant=model.variant, **found)


def lora_name(source: str, name: str | None) -> str:
    """The name of a ``[[lora]]``: the one that it is given, else its file's without extension."""
    return name or PurePosixPath(source.rpartition(":")[2] if is_hub_id(source) else source).stem


def hub_file(url: str) -> str:
    """``ID[@REVISION]:FILE`` for the URL of a file on the hub's website; empty for other text."""
    found = _HUB_URL.fullmatch(url)
    if not found or not found["file"]:
        return ""
    revision = found["revision"] if found["revision"] != "main" else None
    return as_part(found["id"], revision, found["file"].lstrip("/"))


def as_part(source: str, revision: str | None, inside: str | None) -> str:
    """A hub source as ``[model.components]`` has it; ``inside`` is a sub-folder or a file."""
    return source + (f"@{revision}" if revision else "") + (f":{inside}" if inside else "")


def check_source(source: Source, base: Path) -> str | None:
    """An error message if a source is not written correctly, else None; ``base`` is the base of folders."""
    if isinstance(source, PartSource) and (wrong := _wrong_part(source)):
        return wrong
    if is_hub_id(source.source):
        if not HUB_ID.fullmatch(source.source):
            return f"'{source.source}' is not a model source: {_meant(source.source, base)}"
        if source.revision is not None and not is_revision(source.revision):
            return f"{source.revision!r} is not a revision: give a branch, a tag or a commit"
        return None
    if source.revision is not None:
        return "only a model on the hub can have a revision"
    name, _, inner = source.source.removeprefix(PLUGIN).partition("/")
    packaged = source.source.startswith(PLUGIN)
    path = PurePosixPath(inner)
    if packaged and (not name or not inner or path.is_absolute() or ".." in path.parts):
        return f"'{source.source}' is not a packaged model: write plugin:NAME/FOLDER"
    return None


def path_of(source: str, base: Path) -> Path:
    """The absolute path of a folder source."""
    return Path(os.path.abspath(base / os.path.expanduser(source)))  # noqa: PTH100, PTH111


def mistaken_hub_id(source: Source, base: Path) -> str | None:
    """An error message if a hub id was probably meant as a path, else None.

    It was if it names a file, or something beside the manifest, and has no revision.
    """
    path = path_of(source.source, base)
    if source.revision is not None or (isinstance(source, PartSource) and (source.subfolder or source.file)):
        return None
    if path.is_file() or path.suffix.lower() in _SINGLE_FILES:
        return no_folder(path, source.source)
    if not path.exists():
        return None
    is_part = isinstance(source, PartSource)
    on_hub = f'write "{source.source}@main"' if is_part else 'give a `revision` such as "main"'
    return (
        f"'{source.source}' is a hub id, but also exists beside the manifest: write "
        f'"./{source.source}" for the folder, or {on_hub} for the model on the hub'
    )


def no_folder(path: Path, source: str) -> str:
    """The error message for a path that is not a model folder."""
    if path.suffix.lower() in _WEIGHTS:
        written = source if source.startswith((".", "/", "~")) else f"./{source}"
        return (
            f"{path} is a single file: in a manifest, a whole checkpoint is written as `[model] source = "
            f'"{written}"`, and the file of one component in [model.components], such as '
            f'`transformer = "{written}"`'
        )
    if path.is_file() or path.suffix.lower() in _SINGLE_FILES:
        return (
            f"{path} is a single file, not a model folder: {_FOLDER_MEANT}. diffusers can make one: "
            'PIPELINE.from_single_file("FILE").save_pretrained("FOLDER")'
        )
    missing = f"there is no model folder {path} (the manifest's source is '{source}')"
    if _WINDOWS.match(source):
        return f"{missing}: that is a Windows path; paths on this system are written /like/this"
    return missing


_FOLDER_MEANT = "a model is a folder in diffusers layout, with a sub-folder for each component, or a hub id"


def _meant(source: str, base: Path) -> str:
    """A suggestion for a source that is not written correctly."""
    if url := _HUB_URL.fullmatch(source):
        if url["file"]:
            return f'that is one file: write "{url["id"]}" for the whole model, if it is in diffusers layout'
        revision = url["revision"] if url["revision"] not in (None, "main") else None
        more = f' and `revision = "{revision}"`' if revision else ""
        return f'write "{url["id"]}"{more}'
    if source.startswith("file://"):
        return f'write "{source.removeprefix("file://")}"'
    if "://" in source:
        return "models cannot be loaded from a URL: download it and give the folder, starting with ./, / or ~"
    posix = source.replace("\\", "/")
    if os.path.exists(base / posix):  # noqa: PTH110
        return f'write "./{posix}" for the one beside the manifest'
    if source.startswith("$"):
        return "variables are not expanded: write the path itself, or ~ for your home"
    return (
        "a hub id is OWNER/NAME, a folder starts with ./, / or ~, a packaged model is plugin:NAME/FOLDER"
        + ("; folders are written with /" if "\\" in source else "")
    )


def _wrong_part(part: PartSource) -> str | None:
    """An error message if a part is a pickled file, or its place in a repository is not written correctly."""
    if part.subfolder == "":
        return f"'{part.source}:' names no sub-folder: write OWNER/NAME:SUBFOLDER or OWNER/NAME:FILE"
    last = part.file or part.subfolder or part.source
    if PurePosixPath(last).suffix.lower() in _PICKLES:
        return f"'{last}' is pickled, and can run code when loaded: get the weights as .safetensors or .gguf"
    if part.file and PurePosixPath(part.file).suffix not in _WEIGHTS:
        return f"'{part.file}' ends in capital letters: rename the file"
    if last == part.source:
        beside = f'"./{last}" for the one beside the manifest, or OWNER/NAME:FILE for one on the hub'
        return f"'{last}' is a file: write {beside}" if _is_file(last) else None
    inner = PurePosixPath(last)
    if is_hub_id(part.source) and (inner.is_absolute() or ".." in inner.parts or "\\" in last):
        return f"'{last}' is not in a repository: write OWNER/NAME:SUBFOLDER or OWNER/NAME:FILE"
    return None


def _is_file(written: str) -> bool:
    """Whether a source names a file of weights, which has one of their endings."""
    return PurePosixPath(written).suffix.lower() in _SINGLE_FILES


def is_revision(name: str) -> bool:
    """Whether it can be a git name and is a safe path: the hub's client uses it as one."""
    return bool(REVISION.fullmatch(name)) and ".." not in name
