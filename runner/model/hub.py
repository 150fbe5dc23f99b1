"""Models on the hub, through huggingface_hub: only the files that the stages need, resumed where cut off."""

from __future__ import annotations

import io
import queue
import shutil
import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.active_time import next_of
from runner.errors import ModelError, StorageError
from runner.manifest.units import format_size
from runner.model.files import IGNORED, INDEX, PICKLES, open_component, patterns, select

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from runner.api import Component
    from runner.manifest.schema import ModelSource

# by name: they are httpx2's, httpx's or requests', as the client's version has it
OUT_OF_REACH = {
    "LocalEntryNotFoundError",
    "ConnectError",
    "ConnectionError",
    "Timeout",
    "TimeoutError",
    "TimeoutException",
}
SPARE = 1 << 30  # bytes that a download must leave free on the disk


@dataclass(frozen=True)
class Listing:
    """What a repository holds at a commit: sizes of its files, None where the hub names none."""

    commit: str
    sizes: Mapping[str, int | None]


def cached(source: ModelSource, components: Sequence[Component]) -> Path | None:
    """The snapshot's folder if everything needed is in the hub's cache; asks no network."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(_snapshot(source, components, local_files_only=True))
    except (LocalEntryNotFoundError, OSError, ValueError):
        return None
    try:
        for component in components:
            open_component(folder, component)
    except ModelError:
        return None
    return folder


def download(
    source: ModelSource, components: Sequence[Component], progress: Callable[[int, int], None]
) -> Path:
    """Bring the files that the components need into the hub's cache; returns the snapshot's folder.

    ``progress`` is told bytes so far and in all.

    Raises:
        ModelError: the repository is missing, gated, out of reach, or lacks what the stages need.
        StorageError: the disk has no room.

    """
    try:
        total = _bytes_to_fetch(source, components)
        _check_room(source, total)
        meter = _meter(lambda done: progress(min(done, total), total))
        (snapshot,) = in_threads([lambda: _snapshot(source, components, tqdm_class=meter)])
    except (ModelError, StorageError):
        raise
    except Exception as error:
        raise explained(source, error) from error
    folder = Path(snapshot)
    for component in components:
        open_component(folder, component)
    return folder


def _snapshot(source: ModelSource, components: Sequence[Component], **options: Any) -> Any:
    import huggingface_hub

    return huggingface_hub.snapshot_download(
        source.source,
        revision=source.revision,
        allow_patterns=patterns(components),
        ignore_patterns=list(IGNORED),
        **options,
    )


def in_threads(
    works: Sequence[Callable[[], Any]], count: int = 1, patience: float | None = None
) -> list[Any]:
    """Work in ``count`` threads, so that a signal reaches us at once: the client's own cannot be stopped.

    Returns what each work returned. The first error ends it all.

    Raises:
        TimeoutError: no work came to an end for ``patience`` seconds.

    """
    waiting = deque(enumerate(works))
    done: queue.SimpleQueue[tuple[int, Any, Exception | None]] = queue.SimpleQueue()

    def run() -> None:
        while waiting:
            try:
                n, work = waiting.popleft()
            except IndexError:  # another thread was faster
                return
            try:
                done.put((n, work(), None))
            except Exception as error:
                done.put((n, None, error))

    for _ in range(min(count, len(works))):
        threading.Thread(target=run, daemon=True).start()
    results: dict[int, Any] = {}
    try:
        for _ in works:
            n, results[n], error = next_of(done, patience)
            if error is not None:
                raise error
    except queue.Empty:
        raise TimeoutError(f"no answer within {patience} s") from None
    finally:
        waiting.clear()
    return [results[n] for n in range(len(works))]


def listing(source: ModelSource) -> Listing:
    """Ask the hub what there is; raises the client's errors, and TimeoutError."""
    from huggingface_hub import HfApi
    from huggingface_hub.constants import HF_HUB_ETAG_TIMEOUT as PATIENCE

    def ask() -> Any:
        return HfApi().model_info(
            source.source, revision=source.revision, files_metadata=True, timeout=PATIENCE
        )

    # the client's time-out is for each of the hub's addresses and each wait; a user waits once
    (told,) = in_threads([ask], patience=PATIENCE)
    sizes = {file.rfilename: file.size for file in told.siblings or ()}
    return Listing(told.sha or source.revision or "main", sizes)


def _bytes_to_fetch(source: ModelSource, components: Sequence[Component]) -> int:
    """Bytes that are not in the cache yet; refuses a repository that lacks what is needed."""
    from huggingface_hub import try_to_load_from_cache

    told = listing(source)
    wanted = {name for c in components for name in needed(source, c, list(told.sizes))}
    wanted |= {INDEX} & set(told.sizes)
    return sum(
        told.sizes[name] or 0
        for name in wanted
        if not isinstance(try_to_load_from_cache(source.source, name, revision=told.commit), str)
    )


def needed(source: ModelSource, component: Component, names: list[str]) -> list[str]:
    """Those of a repository's files that the component needs.

    Raises:
        ModelError: there are none, or pickled weights only.

    """
    chosen = select(names, component)
    weights = any(name.endswith(".safetensors") for name in chosen)
    expects_weights = f"{component.path}/config.json" in chosen and not component.config_only
    if chosen and (weights or not expects_weights):
        return chosen
    pickled = [n for n in names if n.startswith(f"{component.path}/") and n.endswith(PICKLES)]
    if pickled:
        raise ModelError(
            f"{title(source)} has pickled weights only ({pickled[0]}), which can run code when loaded; "
            "name a model or revision with safetensors"
        )
    raise ModelError(
        f"{title(source)} has nothing for the component '{component.name}'; is it in diffusers layout?"
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


def explained(source: ModelSource, error: Exception) -> ModelError | StorageError:
    """The client's error in the user's words, with what to do."""
    from huggingface_hub import errors

    name = title(source)
    if isinstance(error, errors.GatedRepoError):
        return ModelError(
            f"{name} is gated: accept its licence on the model's page, then log in with `hf auth login` "
            "or set HF_TOKEN to a token that may read it"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return ModelError(f"{name} is not there: the model has no revision '{source.revision}'")
    if isinstance(error, errors.RepositoryNotFoundError):
        return ModelError(
            f"{name} is not there: check the name; a private model needs HF_TOKEN or `hf auth login`"
        )
    if isinstance(error, errors.OfflineModeIsEnabled):
        return ModelError(f"{name} is not (wholly) on this machine, and HF_HUB_OFFLINE forbids to fetch it")
    kinds = {base.__name__ for base in type(error).__mro__}
    if kinds & OUT_OF_REACH:
        return ModelError(f"{name} is not (wholly) on this machine, and the hub cannot be reached; try again")
    if isinstance(error, OSError) and error.errno is not None:
        return StorageError(f"cannot store {name}: {error.strerror or error}")
    first = str(error).strip().splitlines()[:1]
    return ModelError(
        f"{name} could not be fetched whole: {type(error).__name__}: {first[0] if first else ''} "
        "(run it again: files that have arrived whole are kept)"
    )


def title(source: ModelSource) -> str:
    """How messages name a model."""
    return f"model '{source.source}'" + (f" at '{source.revision}'" if source.revision else "")
