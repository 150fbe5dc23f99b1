"""Models on the hub, through huggingface_hub: only the files that the stages need, resumed where cut off."""

from __future__ import annotations

import glob
import io
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from runner.errors import ModelError, StorageError
from runner.events import Warned
from runner.model import damage, listing
from runner.model.contents import RemoteFolder
from runner.model.files import INDEX, Folder, open_component
from runner.model.fingerprint import altered, note
from runner.model.hub_errors import explained, title
from runner.model.selection import select, variants
from runner.model.threads import in_threads
from runner.units import format_size

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from runner.api import Component
    from runner.manifest.schema import ModelSource
    from runner.model.files import ComponentFiles
    from runner.model.listing import Listing
    from runner.model.selection import Contents, Selection

SPARE = 1 << 30  # bytes that a download must leave free on the disk


class Listener(Protocol):
    """Who is told of a download."""

    def fetching(self, source: str, done: int, total: int) -> None:
        """Bytes so far, and in all."""

    def warning(self, event: Warned) -> None:
        """Something differs from what was asked for."""


@dataclass(frozen=True)
class Snapshot:
    """What the hub's cache has of a model, for some components: ``folder`` has the commit as its name."""

    folder: Path
    names: tuple[str, ...]
    """Files that the components need, as far as can be told."""
    damaged: Mapping[str, str]
    """What is wrong with those that are there, by name."""
    missing: str
    """What is not there of what they need."""

    @property
    def is_whole(self) -> bool:
        return not self.damaged and not self.missing

    def damage(self) -> str:
        """In words, with the blob of each damaged file."""
        files = [f"{name} ({(self.folder / name).resolve()}: {what})" for name, what in self.damaged.items()]
        return f"the hub's cache has a damaged {' and a damaged '.join(files)}" if files else ""


def snapshot(source: ModelSource, components: Sequence[Component]) -> Snapshot | None:
    """What the hub's cache has of a model; None if that is nothing. Asks no network."""
    folder = listing.snapshot_folder(source)
    if folder is None:
        return None
    known = listing.of_snapshot(source, folder)
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    beside = [name for c in components for name in there if name.startswith(f"{c.path}/")]
    try:
        repository = known.sizes if known else there
        chosen = _select(source, components, repository, lambda c: Folder(folder / c.path))
    except ModelError as error:  # an index is damaged, or is not there
        tables = [name for name in beside if name.endswith(".json")]
        return Snapshot(folder, tuple(beside), damage.damaged(folder, tables, known), str(error))
    names = _names(chosen, repository)
    absent = sorted(set(names) - there)
    missing = f"{title(source)} is not (wholly) on this machine ({absent[0]} is missing)" if absent else ""
    return Snapshot(folder, tuple(names), damage.damaged(folder, names, known), missing)


def cached(source: ModelSource, components: Sequence[Component]) -> Path | None:
    """The snapshot's folder if everything needed is in the hub's cache, whole; asks no network."""
    found = snapshot(source, components)
    return found.folder if found and found.is_whole else None


def lacking(source: ModelSource, components: Sequence[Component]) -> str:
    """Why a model cannot be loaded from the hub's cache, for messages."""
    found = snapshot(source, components)
    if found is None or found.is_whole:
        return f"{title(source)} is not (wholly) on this machine"
    return found.damage() or found.missing


def damage_in_cache(source: ModelSource, components: Sequence[Component]) -> str:
    """What the hub's cache has damaged of a model, in words; empty if nothing."""
    found = snapshot(source, components)
    return found.damage() if found else ""


def download(source: ModelSource, components: Sequence[Component], listener: Listener) -> Path:
    """Bring the files that the components need into the hub's cache; returns the snapshot's folder.

    Files that are damaged there are fetched again, once, and the listener is told.

    Raises:
        ModelError: the repository is missing, gated, out of reach, or lacks what the stages need.
        StorageError: the disk has no room.

    """
    try:
        folder, names = _fetch(source, components, listener)
        broken = _damage(source, folder, names, components)
        if broken:
            for name, what in broken.items():
                told = f"{title(source)}: {name} was damaged in the hub's cache and is fetched again: {what}"
                listener.warning(Warned(kind="repaired", message=told))
                damage.remove(folder, name)
            folder, names = _fetch(source, components, listener)
            _refuse_damaged(source, damage.damaged(folder, names, listing.of_snapshot(source, folder)))
    except (ModelError, StorageError):
        raise
    except Exception as error:
        raise explained(source, error, damage_in_cache(source, components)) from error
    note([open_component(folder, component, source.variant) for component in components])
    return folder


def _refuse_damaged(source: ModelSource, found: Mapping[str, str]) -> None:
    for name, what in found.items():
        raise ModelError(f"{title(source)}: {name} is damaged on the hub itself: {what}")


def _damage(
    source: ModelSource, folder: Path, names: Collection[str], components: Sequence[Component]
) -> dict[str, str]:
    found = damage.damaged(folder, names, listing.of_snapshot(source, folder))
    if found:
        return found
    opened = [open_component(folder, component, source.variant) for component in components]
    return dict.fromkeys(altered(opened), "it was written to, and is not what its blob's name says")


def is_altered(files: Sequence[ComponentFiles]) -> bool:
    """Whether files in the hub's cache were written to since they were noted, and are others now."""
    return bool(altered(files))


def _fetch(
    source: ModelSource, components: Sequence[Component], listener: Listener
) -> tuple[Path, list[str]]:
    """The snapshot's folder with what was not in the cache yet, and the names of what is needed."""
    import huggingface_hub

    now = listing.ask(source)
    names = needed(source, components, now)
    total = _bytes_to_fetch(source, names, now)
    _check_room(source, total)

    def report(done: int) -> None:
        if total:  # else all is there, or is about to be found damaged
            listener.fetching(source.source, min(done, total), total)

    meter = _meter(report)

    def fetch() -> Any:
        return huggingface_hub.snapshot_download(
            source.source,
            revision=source.revision,
            allow_patterns=[glob.escape(name) for name in names],
            tqdm_class=meter,
        )

    (folder,) = in_threads([fetch])
    return Path(folder), names


def needed(source: ModelSource, components: Sequence[Component], there: Listing) -> list[str]:
    """Those of a repository's files that the components need; indexes and headers are read for that.

    Raises:
        ModelError: a component has none, pickled weights only, or none that can be told from others.
        Exception: the client's errors.

    """
    return _names(selections(source, components, there), there.sizes)


def selections(source: ModelSource, components: Sequence[Component], there: Listing) -> dict[str, Selection]:
    """The files of each component, by its name; raises as :func:`needed`."""
    return _select(source, components, there.sizes, lambda c: RemoteFolder(source, there, c.path))


def _select(
    source: ModelSource,
    components: Sequence[Component],
    names: Collection[str],
    contents: Callable[[Component], Contents],
) -> dict[str, Selection]:
    check_variant(source, names)
    for component in components:
        _check_presence(source, component, names)
    return {c.name: select(names, c, contents(c), source.variant) for c in components}


def _names(chosen: Mapping[str, Selection], names: Collection[str]) -> list[str]:
    of_components = {name for selection in chosen.values() for name in selection.names}
    return sorted(of_components | ({INDEX} & set(names)))


def check_variant(source: ModelSource, names: Collection[str]) -> None:
    """See that a model has the variant that is asked for in one of its folders at least.

    Where another folder has it not, its plain files are loaded, as by diffusers.

    Raises:
        ModelError: none has it.

    """
    there = variants(names)
    if source.variant is not None and source.variant not in there:
        known = f"there are: {', '.join(there)}" if there else "it has plain files alone"
        raise ModelError(f"{title(source)} has no files of variant '{source.variant}' ({known})")


def _check_presence(source: ModelSource, component: Component, names: Collection[str]) -> None:
    if not any(name.startswith(f"{component.path}/") for name in names):
        raise ModelError(
            f"{title(source)} has nothing for the component '{component.name}'; is it in diffusers layout?"
        )


def _bytes_to_fetch(source: ModelSource, names: Collection[str], there: Listing) -> int:
    """Bytes that are not in the cache yet."""
    from huggingface_hub import try_to_load_from_cache

    return sum(
        there.sizes[name] or 0
        for name in names
        if not isinstance(try_to_load_from_cache(source.source, name, revision=there.commit), str)
    )


def _check_room(source: ModelSource, total: int) -> None:
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE)
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if total and total + SPARE > free:
        raise StorageError(
            f"{title(source)} needs {format_size(total)} in {HF_HUB_CACHE}, where {format_size(free)} are "
            "free; make room, or set HF_HOME to a larger disk"
        )


def _meter(report: Callable[[int], None]) -> type[Any]:
    """A tqdm class that shows nothing and reports bytes.

    The hub's client makes several bars; what has arrived is the most that a bar of bytes counts.
    """
    from tqdm.auto import tqdm

    bars: list[Any] = []

    class Meter(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)
            super().__init__(*args, **{**kwargs, "file": io.StringIO(), "disable": False})
            if self.unit == "B":
                bars.append(self)

        def update(self, n: float | None = 1) -> bool | None:
            done: bool | None = super().update(n)
            report(int(max((bar.n for bar in bars), default=0)))
            return done

    return Meter
