"""Hub models in huggingface_hub's cache: finds, checks and downloads the needed files, damaged ones again."""

from __future__ import annotations

import glob
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from runner.errors import ModelError, StorageError
from runner.events import Warned
from runner.files.storage import check_room
from runner.model.files import Folder, open_component, open_file
from runner.model.fingerprint import altered, trust_names
from runner.model.hub import damage, listing
from runner.model.hub.errors import explained, title
from runner.model.hub.needed import names_of, needed, select_each
from runner.model.hub.threads import in_threads
from runner.model.parts import file_of, located, located_on_disk
from runner.model.selection import files_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from runner.api import Component
    from runner.manifest.schema import Source
    from runner.model.files import ComponentFiles
    from runner.model.hub.listing import Listing

SPARE = 1 << 30  # bytes that a download must leave free on the disk


class Listener(Protocol):
    """Receives the progress of a download."""

    def fetching(self, source: str, done: int, total: int) -> None:
        """Take the bytes downloaded so far, and their total."""

    def warning(self, event: Warned) -> None:
        """Take a warning, such as that a damaged file is fetched again."""


@dataclass(frozen=True)
class Snapshot:
    """The state of a model in the hub's cache, for some components."""

    folder: Path
    """Named by the commit."""
    names: tuple[str, ...]
    """Files that the components need; those present, if an index is damaged or missing."""
    damaged: Mapping[str, str]
    """Descriptions of damage, by file name."""
    missing: str
    """An error message about a missing file; empty if none is."""

    @property
    def is_whole(self) -> bool:
        return not self.damaged and not self.missing

    def damage(self) -> str:
        """A message that names each damaged file and its blob; empty if there is none."""
        files = [f"{name} ({(self.folder / name).resolve()}: {what})" for name, what in self.damaged.items()]
        return f"the hub's cache has a damaged {' and a damaged '.join(files)}" if files else ""


def snapshot(source: Source, components: Sequence[Component]) -> Snapshot | None:
    """The state of a model in the hub's cache; None if it is not there. Uses no network."""
    folder = listing.snapshot_folder(source)
    if folder is None:
        return None
    known = listing.of_snapshot(source, folder)
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    repository = known.sizes if known else there
    components = located(source, components, repository)
    beside = [name for c in components for name in files_of(c, there)]
    try:
        chosen = select_each(source, components, repository, lambda c: Folder(folder / c.path))
    except ModelError as error:  # an index is damaged or missing
        tables = [name for name in beside if name.endswith(".json")]
        return Snapshot(folder, tuple(beside), damage.damaged(folder, tables, known), str(error))
    names = names_of(chosen, repository)
    absent = sorted(set(names) - there)
    missing = f"{title(source)} is not (completely) on this machine"
    missing = f"{missing} ({absent[0]} is missing)" if absent else ""
    return Snapshot(folder, tuple(names), damage.damaged(folder, names, known), missing)


def cached(source: Source, components: Sequence[Component]) -> Path | None:
    """The snapshot's folder if all needed files are in the hub's cache, undamaged. Uses no network."""
    found = snapshot(source, components)
    return found.folder if found and found.is_whole else None


def lacking(source: Source, components: Sequence[Component]) -> str:
    """The reason, for messages, why a model cannot be loaded from the hub's cache."""
    found = snapshot(source, components)
    if found is None or found.is_whole:
        return f"{title(source)} is not (completely) on this machine"
    return found.damage() or found.missing


def damage_in_cache(source: Source, components: Sequence[Component]) -> str:
    """A message about a model's damaged files in the hub's cache; empty if there are none."""
    found = snapshot(source, components)
    return found.damage() if found else ""


def download(source: Source, components: Sequence[Component], listener: Listener) -> Path:
    """Download the files that the components need into the hub's cache; returns the snapshot's folder.

    Interrupted downloads are resumed. Damaged files are fetched again, once, with a warning to the listener.

    Raises:
        ModelError: the repository is missing, gated or unreachable, or lacks files that the components need.
        StorageError: the disk has no room.

    """
    try:
        folder, names = _fetch(source, components, listener)
        broken = _damage(source, folder, names, components)
        if broken:
            for name, what in broken.items():
                problem = f"{name} was damaged in the hub's cache and is fetched again: {what}"
                listener.warning(Warned(kind="repaired", message=f"{title(source)}: {problem}"))
                damage.remove(folder, name)
            folder, names = _fetch(source, components, listener)
            _refuse_damaged(source, damage.damaged(folder, names, listing.of_snapshot(source, folder)))
    except (ModelError, StorageError):
        raise
    except Exception as error:
        raise explained(source, error, damage_in_cache(source, components)) from error
    trust_names(opened(source, folder, components))
    return folder


def opened(source: Source, folder: Path, components: Sequence[Component]) -> list[ComponentFiles]:
    """The files of the components in a snapshot.

    Raises:
        ModelError: they are missing or damaged.

    """
    return [open_from(source, folder, c) for c in located_in(source, folder, components)]


def open_from(source: Source, folder: Path, component: Component) -> ComponentFiles:
    """The files of a component in a folder of its source: a model, or a single file with its weights.

    Raises:
        ModelError: they are missing, damaged or pickled.

    """
    if file := file_of(source):
        return open_file(folder, component, file)
    return open_component(folder, component, source.variant)


def located_in(source: Source, folder: Path, components: Sequence[Component]) -> list[Component]:
    """The components with the folders that they have in a snapshot."""
    known = listing.of_snapshot(source, folder)
    return located(source, components, known.sizes) if known else located_on_disk(source, folder, components)


def _refuse_damaged(source: Source, found: Mapping[str, str]) -> None:
    for name, what in found.items():
        raise ModelError(f"{title(source)}: {name} is damaged on the hub itself: {what}")


def _damage(
    source: Source, folder: Path, names: Collection[str], components: Sequence[Component]
) -> dict[str, str]:
    found = damage.damaged(folder, names, listing.of_snapshot(source, folder))
    if found:
        return found
    files = opened(source, folder, components)
    return dict.fromkeys(altered(files), "it was written to and does not match the hash in its blob's name")


def is_altered(files: Sequence[ComponentFiles]) -> bool:
    """Whether the content of files in the hub's cache has changed since they were fetched or hashed."""
    return bool(altered(files))


def _fetch(source: Source, components: Sequence[Component], listener: Listener) -> tuple[Path, list[str]]:
    """Download missing files; returns the snapshot's folder and the names of all needed files."""
    import huggingface_hub

    current = listing.from_hub(source)
    names = needed(source, components, current)
    total = _bytes_to_fetch(source, names, current)
    _check_room(source, total)

    def report(done: int) -> None:
        if total:  # else nothing is missing, and damage is checked afterwards
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


def _bytes_to_fetch(source: Source, names: Collection[str], repository: Listing) -> int:
    """The total size of the files that are not in the cache yet."""
    from huggingface_hub import try_to_load_from_cache

    return sum(
        repository.sizes[name] or 0
        for name in names
        if not isinstance(try_to_load_from_cache(source.source, name, revision=repository.commit), str)
    )


def _check_room(source: Source, total: int) -> None:
    from huggingface_hub.constants import HF_HUB_CACHE

    if not total:
        return
    folder = Path(HF_HUB_CACHE)
    while not folder.exists():
        folder = folder.parent
    check_room(folder, total, SPARE, f"{title(source)} needs", "set HF_HOME to a larger disk")


def _meter(report: Callable[[int], None]) -> type[Any]:
    """A tqdm class that prints nothing and reports the bytes downloaded so far.

    The hub's client makes several bars; the largest count among those of bytes is the total.
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
