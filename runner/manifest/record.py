"""The manifest as recorded in a run directory: overrides applied, comments kept, relative paths adapted."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli
import tomlkit

from runner.manifest import overrides

if TYPE_CHECKING:
    from collections.abc import Container

    from runner.manifest.load import Manifest


def as_run(manifest: Manifest, folder: Path, input_files: Container[str] = ()) -> bytes:
    """The TOML text of an equivalent manifest in ``folder``. ``input_files``: parameters that are files."""
    document: Any = tomlkit.parse(manifest.text)
    if manifest.executor is not None:
        overrides.choose_executor(document, manifest.executor)
    for override in manifest.overrides:
        overrides.put(document, override)
    if manifest.prompts:
        batch = {"prompts": list(manifest.prompts)}
        if manifest.table.batch.seeds:
            batch["seeds"] = list(manifest.table.batch.seeds)  # type: ignore[arg-type]
        document["batch"] = batch
        document.pop("item", None)
    for table in (document, *document["stage"]):
        model = table.get("model", {})
        parts = model.get("components", {})
        for sources, name in [(model, "source"), *((parts, name) for name in parts)]:
            if sources.get(name, "").startswith("."):
                sources[name] = moved(sources[name], manifest.folder, folder)
    for table in document.get("lora", ()):
        if table.get("source", "").startswith("."):
            table["source"] = moved(table["source"], manifest.folder, folder)
    if "file" in document.get("batch", {}):
        document["batch"]["file"] = moved(document["batch"]["file"], manifest.folder, folder)
    stages = [stage.get("with", {}) for stage in document["stage"]]
    for table in (document.get("with", {}), *stages, *document.get("item", ())):
        for name in [name for name in table if name in input_files]:
            table[name] = _files_moved(table[name], manifest.folder, folder)
    return tomlkit.dumps(document).encode()


def content_of(manifest: Manifest) -> str:
    """SHA-256 of the manifest's file and its item file, without overrides."""
    digest = hashlib.sha256(manifest.text.encode())
    batch = tomli.loads(manifest.text).get("batch", {})
    if isinstance(file := batch.get("file"), str):
        with contextlib.suppress(OSError, ValueError):
            digest.update((manifest.folder / file).read_bytes())
    return digest.hexdigest()


def _files_moved(value: Any, old: Path, new: Path) -> Any:
    """The value, with each string that is the path of an existing file made relative to ``new``."""
    if isinstance(value, str):
        return moved(value, old, new) if (old / value).exists() else value
    if isinstance(value, list):
        return [_files_moved(one, old, new) for one in value]
    return value


def moved(path: str, old: Path, new: Path) -> str:
    """A path relative to ``old`` as one relative to ``new``, starting with a dot."""
    if Path(os.path.expanduser(path)).is_absolute():  # noqa: PTH111 - never raises: the user may not exist
        return path
    try:
        moved = Path(os.path.relpath(old / path, new)).as_posix()
    except ValueError:  # another drive
        return str((old / path).absolute())
    return moved if moved.startswith(".") else f"./{moved}"
