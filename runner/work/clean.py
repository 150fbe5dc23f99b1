"""Finds and removes files of a run directory that no later run needs; outputs only on request.

Only files with names as runner gives them are considered; links are not followed.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from runner.files.provenance import read_provenance, sidecar
from runner.files.storage import TEMPORARY, storage_errors
from runner.rundir.directory import key_and_rest
from runner.rundir.history import read_runs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from runner.rundir.directory import RunDirectory
    from runner.work.retention import RetentionSet
    from runner.work.work import StageKey

KINDS = ("temporary", "states", "logs", "handoffs", "outputs")
_MADE = re.compile(r"([0-9a-f]{64})\..+")
_LOG = re.compile(r"\d{8}T\d{6}Z-.+\.log")


@dataclass(frozen=True)
class CleanSelection:
    """What to remove besides files that are of no use.

    ``handoffs``: also current ones that no run would read. ``outputs``: also outputs. ``before``: only files
    last written before that time (seconds since 1970).
    """

    handoffs: bool = False
    outputs: bool = False
    before: float | None = None


Found = dict[str, list[Path]]
"""Files by kind, one of :data:`KINDS`."""


def find_removable(directory: RunDirectory, needs: RetentionSet | None, selection: CleanSelection) -> Found:
    """The files that can be removed; if ``needs`` is None (unknown), temporary files and logs alone.

    Logs of the last run are kept.
    """
    found: Found = {kind: [] for kind in KINDS}
    found["temporary"] += [path for path in directory.path.rglob(f".*{TEMPORARY}") if path.is_file()]
    found["logs"] += _old_logs(directory)
    if needs is not None:
        found["states"] += [
            path for path, made in _made(directory.path / "state") if made not in needs.to_make
        ]
        for path, made in _made(directory.path / "handoff"):
            kind = _kind_of_handoff(made, needs, selection)
            if kind is not None:
                found[kind].append(path)
        if selection.outputs:
            found["outputs"] += [path for path in _outputs(directory) if path not in needs.outputs]
    return {
        kind: [path for path in paths if _is_before(path, selection.before)] for kind, paths in found.items()
    }


def _kind_of_handoff(made: StageKey, needs: RetentionSet, selection: CleanSelection) -> str | None:
    """The kind that a hand-off is removed as, or None if it is kept."""
    if made in needs.taken:
        return None
    stage, _ = made
    if stage in needs.last_stages or stage not in needs.stages:
        # a stage that the manifests no longer have may have been terminal
        return "outputs" if selection.outputs else None
    return "handoffs" if selection.handoffs or made not in needs.results else None


def _made(folder: Path) -> Iterator[tuple[Path, StageKey]]:
    """Files that stages made, each with its stage's name and its key."""
    for stage in _entries(folder):
        if stage.is_dir(follow_symlinks=False):
            for file in _entries(Path(stage.path)):
                match = _MADE.fullmatch(file.name)
                if match and file.is_file(follow_symlinks=False):
                    yield Path(file.path), (stage.name, match[1])


def _old_logs(directory: RunDirectory) -> Iterator[Path]:
    started = 0.0
    for run in read_runs(directory.journal):
        started = run.started.timestamp() if run.started else started
    for file in _entries(directory.path / "logs"):
        if _LOG.fullmatch(file.name) and file.stat(follow_symlinks=False).st_mtime < started:
            yield Path(file.path)


def _outputs(directory: RunDirectory) -> Iterator[Path]:
    """Outputs, each with its sidecar; files without a matching provenance record are left out."""
    for file in _entries(directory.outputs):
        path, (key, _) = Path(file.path), key_and_rest(file.name)
        if key and file.is_file(follow_symlinks=False):
            record = read_provenance(path)
            if record is not None and str(record.get("key")).startswith(key):
                yield path
                if sidecar(path).is_file():
                    yield sidecar(path)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        return sorted(os.scandir(folder), key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _is_before(path: Path, time: float | None) -> bool:
    return time is None or path.lstat().st_mtime < time


def size_of(paths: Iterable[Path]) -> int:
    """Bytes that removing the paths frees: a file with hard links elsewhere frees none."""
    names: Counter[tuple[int, int]] = Counter()
    size = 0
    for path in paths:
        stat = path.lstat()
        file = (stat.st_dev, stat.st_ino)
        names[file] += 1
        if names[file] == stat.st_nlink:
            size += stat.st_size
    return size


def remove(directory: RunDirectory, found: Found) -> None:
    """Remove files, then empty folders of stages. Only for the holder of the lock.

    Raises:
        StorageError: one cannot be removed.

    """
    for paths in found.values():
        for path in paths:
            with storage_errors(path):
                path.unlink(missing_ok=True)
    for kind in ("state", "handoff"):
        for stage in _entries(directory.path / kind):
            if stage.is_dir(follow_symlinks=False) and not _entries(Path(stage.path)):
                Path(stage.path).rmdir()
