"""The manifest as it was run: overrides applied, comments kept, relative paths right from its new place."""

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
    from runner.manifest.load import Manifest


def as_run(manifest: Manifest, folder: Path) -> bytes:
    """The text of a manifest that does the same from ``folder`` as this one does from where it is."""
    document: Any = tomlkit.parse(manifest.text)
    for override in manifest.overrides:
        overrides.put(document, override)
    if manifest.prompts:
        batch = {"prompts": list(manifest.prompts)}
        if manifest.table.batch.seeds:
            batch["seeds"] = list(manifest.table.batch.seeds)  # type: ignore[arg-type]
        document["batch"] = batch
        document.pop("item", None)
    for table in (document, *document["stage"]):
        source = table.get("model", {}).get("source", "")
        if source.startswith("."):
            table["model"]["source"] = _moved(source, manifest.folder, folder)
    if "file" in document.get("batch", {}):
        document["batch"]["file"] = _moved(document["batch"]["file"], manifest.folder, folder)
    return tomlkit.dumps(document).encode()


def content_of(manifest: Manifest) -> str:
    """A digest of what is in the manifest's file and its file of items, whatever overrides them."""
    digest = hashlib.sha256(manifest.text.encode())
    batch = tomli.loads(manifest.text).get("batch", {})
    if isinstance(file := batch.get("file"), str):
        with contextlib.suppress(OSError, ValueError):
            digest.update((manifest.folder / file).read_bytes())
    return digest.hexdigest()


def _moved(path: str, old: Path, new: Path) -> str:
    """A path from ``old`` as seen from ``new``; it keeps its leading dot."""
    if Path(os.path.expanduser(path)).is_absolute():  # noqa: PTH111 - as it was read: it may name no user
        return path
    try:
        moved = Path(os.path.relpath(old / path, new)).as_posix()
    except ValueError:  # another drive
        return str((old / path).absolute())
    return moved if moved.startswith(".") else f"./{moved}"
