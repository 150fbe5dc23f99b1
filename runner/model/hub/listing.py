"""The file lists of repositories on the hub, as the hub reports them or as they were cached."""

from __future__ import annotations

import functools
import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.manifest.schema import Source
from runner.model.hub import cache
from runner.model.hub.threads import in_threads

if TYPE_CHECKING:
    from collections.abc import Mapping

_TEMPORARY = (408, 429)  # HTTP statuses that are not final


@dataclass(frozen=True)
class Listing:
    """A repository at a commit: sizes of its files in bytes, None where the hub does not report one."""

    commit: str
    sizes: Mapping[str, int | None]


def from_hub(source: Source) -> Listing:
    """The current listing from the hub; raises errors of the hub's client, and TimeoutError."""
    from huggingface_hub import HfApi
    from huggingface_hub.constants import HF_HUB_ETAG_TIMEOUT as TIMEOUT

    def request() -> Any:
        return HfApi().model_info(
            source.source, revision=source.revision, files_metadata=True, timeout=TIMEOUT
        )

    # the client's timeout applies to each of the hub's addresses; this one to the whole request
    (info,) = in_threads([request], timeout=TIMEOUT)
    sizes = {file.rfilename: file.size for file in info.siblings or ()}
    listing = Listing(info.sha or source.revision or "main", sizes)
    data = json.dumps({"commit": listing.commit, "sizes": sizes}).encode()
    for revision in {source.revision or "main", listing.commit}:
        cache.save(source.source, ("revision", revision), data)
    return listing


def current(source: Source) -> Listing:
    """The listing, requested once per process; a cached one for a commit, or if the hub cannot be reached.

    Raises as :func:`from_hub`.
    """
    return _current(Source(source=source.source, revision=source.revision))


@functools.cache  # the stages of a manifest share a model, and parts may lie in one repository
def _current(source: Source) -> Listing:
    known = _cached(source.source, source.revision or "main")
    if known and known.commit == source.revision:
        return known
    try:
        return from_hub(source)
    except Exception as error:
        if known and not _refused(error):
            return known
        raise


def of_snapshot(source: Source, snapshot: Path) -> Listing | None:
    """The listing at a snapshot's commit, if runner or the hub's client has cached it."""
    known = _cached(source.source, snapshot.name)
    if known is not None:
        return known
    with suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
        tree = json.loads(Path(snapshot.parent.parent, "trees", f"{snapshot.name}.json").read_bytes())
        return Listing(snapshot.name, {name: int(file["size"]) for name, file in tree["files"].items()})
    return None


def snapshot_folder(source: Source) -> Path | None:
    """The folder in the hub's cache with the files of the revision that were fetched so far, or None.

    A branch is taken at the commit where it was when it was last fetched.
    """
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.file_download import repo_folder_name

    repository = Path(HF_HUB_CACHE, repo_folder_name(repo_id=source.source, repo_type="model"))
    revision = source.revision or "main"
    with suppress(OSError, ValueError):
        revision = (repository / "refs" / revision).read_text(encoding="utf-8").strip() or revision
    folder = repository / "snapshots" / revision
    return folder if folder.is_dir() else None


def _cached(repository: str, revision: str) -> Listing | None:
    with suppress(ValueError, TypeError):
        return Listing(**json.loads(cache.load(repository, ("revision", revision)) or b""))
    return None


def _refused(error: Exception) -> bool:
    """Whether the hub has refused the request for good."""
    status = getattr(getattr(error, "response", None), "status_code", 0)
    return 400 <= status < 500 and status not in _TEMPORARY
