"""What a repository on the hub holds at a commit: as the hub says, or as it last said."""

from __future__ import annotations

import functools
import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.model.kept import keep, kept
from runner.model.threads import in_threads

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.manifest.schema import ModelSource

_TRY_AGAIN = (408, 429)  # answers that are no refusal


@dataclass(frozen=True)
class Listing:
    """A repository at a commit: sizes of its files, None where the hub names none."""

    commit: str
    sizes: Mapping[str, int | None]


def ask(source: ModelSource) -> Listing:
    """Ask the hub what there is now; raises the client's errors, and TimeoutError."""
    from huggingface_hub import HfApi
    from huggingface_hub.constants import HF_HUB_ETAG_TIMEOUT as PATIENCE

    def info() -> Any:
        return HfApi().model_info(
            source.source, revision=source.revision, files_metadata=True, timeout=PATIENCE
        )

    # the client's time-out is for each of the hub's addresses and each wait; a user waits once
    (told,) = in_threads([info], patience=PATIENCE)
    sizes = {file.rfilename: file.size for file in told.siblings or ()}
    listing = Listing(told.sha or source.revision or "main", sizes)
    data = json.dumps({"commit": listing.commit, "sizes": sizes}).encode()
    for revision in {source.revision or "main", listing.commit}:
        keep(source.source, ("revision", revision), data)
    return listing


def current(source: ModelSource) -> Listing:
    """What there is, asked once; what a commit holds never changes, and what the hub said before serves where
    it cannot be reached. Raises as :func:`ask`.
    """
    return _current(source.model_copy(update={"variant": None}))


@functools.cache  # the stages of a manifest share a model
def _current(source: ModelSource) -> Listing:
    known = _kept(source.source, source.revision or "main")
    if known and known.commit == source.revision:
        return known
    try:
        return ask(source)
    except Exception as error:
        if known and not _refused(error):
            return known
        raise


def of_snapshot(source: ModelSource, snapshot: Path) -> Listing | None:
    """What the repository holds at a snapshot's commit, if that was asked before: by us, or by the client."""
    known = _kept(source.source, snapshot.name)
    if known is not None:
        return known
    with suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
        tree = json.loads(Path(snapshot.parent.parent, "trees", f"{snapshot.name}.json").read_bytes())
        return Listing(snapshot.name, {name: int(file["size"]) for name, file in tree["files"].items()})
    return None


def snapshot_folder(source: ModelSource) -> Path | None:
    """The folder in the hub's cache with the files of the revision, as far as they were fetched.

    A branch is where it stood when it was last asked for.
    """
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.file_download import repo_folder_name

    repository = Path(HF_HUB_CACHE, repo_folder_name(repo_id=source.source, repo_type="model"))
    revision = source.revision or "main"
    with suppress(OSError, ValueError):
        revision = (repository / "refs" / revision).read_text(encoding="utf-8").strip() or revision
    folder = repository / "snapshots" / revision
    return folder if folder.is_dir() else None


def _kept(repository: str, revision: str) -> Listing | None:
    with suppress(ValueError, TypeError):
        return Listing(**json.loads(kept(repository, ("revision", revision)) or b""))
    return None


def _refused(error: Exception) -> bool:
    """Whether the hub has answered, and with a no."""
    status = getattr(getattr(error, "response", None), "status_code", 0)
    return 400 <= status < 500 and status not in _TRY_AGAIN
