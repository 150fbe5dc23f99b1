"""``[run] publish``: outputs are uploaded to an object store once done, and downloaded at the start.

An object is named after its key, and is there as a whole or not at all where a PUT is atomic. So it is enough
to compare names and sizes, and to check what is taken.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from typing import TYPE_CHECKING

from runner.errors import PluginError, StorageError, in_words
from runner.events import Warned
from runner.files import handoff, provenance
from runner.files.storage import read_regular, storage_errors, temporary_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from runner.pipeline.stage import PipelineStage
    from runner.supervisor.event_publisher import EventPublisher
    from runner.work.demand import Task
    from runner.work.work import Work


class Publication:
    """The published files of one run directory."""

    def __init__(self, url: str, name: str, *, handoffs: bool) -> None:
        """``name`` is the run directory's, which its files are published under.

        Raises:
            PluginError: no installed library knows this kind of URL.

        """
        self._handoffs = handoffs
        try:
            from fsspec.core import url_to_fs

            self._fs, base = url_to_fs(url)
            self._fs.auto_mkdir = True  # of the store that is a folder: others have none
        except (ImportError, ValueError) as error:
            raise PluginError(
                f"[run] publish: {error}; `pip install 'stage-runner[publish]'` brings S3"
            ) from None
        self._base = f"{base.rstrip('/')}/{name}"
        self._waiting: queue.SimpleQueue[Path | None] = queue.SimpleQueue()
        self._failed: list[str] = []
        self._thread: threading.Thread | None = None

    def open(self, work: Work, publisher: EventPublisher) -> None:
        """Download what is only in the store, and upload what is only here. Keys must be known.

        The manifest is sent first: what cannot be written to is found out before anything is made.

        Raises:
            StorageError: the store does not answer, or cannot be written to.

        """
        self._root, self._publisher = work.directory.path, publisher
        manifest = work.directory.manifest
        with _store_errors(self._base):
            self._fs.pipe_file(self._remote(manifest), manifest.read_bytes())
            published = self._listed()
        self._thread = threading.Thread(target=self._send_all, name="publish", daemon=True)
        self._thread.start()
        for stage in work.pipeline.stages:
            for item, keyed in work.keys.items():
                self._settle(work, stage, item, keyed[stage.index].key, published)

    def _settle(
        self, work: Work, stage: PipelineStage, item: str, key: str, published: Mapping[str, int | None]
    ) -> None:
        """Download a result's files that are only in the store; upload those that it has not whole."""
        taken = []
        for path in self._files(work, stage, [item], key):
            name = path.relative_to(self._root).as_posix()
            if not path.exists():
                if name in published:
                    self._take(path)
                    taken.append(path)
            elif name not in published or published[name] not in (None, path.stat().st_size):
                self._waiting.put(path)
        if taken and not _is_whole(work, stage, item, key):
            for path in taken:  # it is made again
                with storage_errors(path):
                    path.unlink(missing_ok=True)

    def add(self, work: Work, stage: PipelineStage, task: Task) -> None:
        """A task is done: send its files."""
        for path in self._files(work, stage, task.items, task.keyed.key):
            if path.exists():
                self._waiting.put(path)

    def close(self) -> None:
        """Wait until all is sent.

        Raises:
            StorageError: something could not be sent; the next run tries again.

        """
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join()
            self._thread = None
        if self._failed:
            count = len(self._failed)
            raise StorageError(f"{count} files could not be published; first {self._failed[0]}; run again")

    def _files(self, work: Work, stage: PipelineStage, items: list[str], key: str) -> Iterator[Path]:
        """The files of a result that are published: a hand-off after the files beside it."""
        if stage.is_terminal:
            for item in items:
                for path in work.files(item, stage).values():
                    yield provenance.sidecar(path)
                    yield path
        if (self._handoffs or stage.is_terminal) and stage.leaves_handoff:
            if not stage.is_terminal:
                yield from work.handoff_files(stage, key)
            yield work.directory.handoff(stage.name, key)

    def _listed(self) -> dict[str, int | None]:
        """Names of the published files with their sizes, where the store has them.

        By one listing, as asking for each takes long.
        """
        found = self._fs.find(self._base, detail=True)
        base = self._base.strip("/")
        return {
            str(path).strip("/").removeprefix(f"{base}/"): info.get("size") for path, info in found.items()
        }

    def _take(self, path: Path) -> None:
        """Download one file to a temporary name, so that it appears complete or not at all."""
        temporary = temporary_of(path)
        with _store_errors(self._base), storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fs.get_file(self._remote(path), str(temporary))
            temporary.replace(path)

    def _remote(self, path: Path) -> str:
        return f"{self._base}/{path.relative_to(self._root).as_posix()}"

    def _send_all(self) -> None:
        while (path := self._waiting.get()) is not None:
            try:
                data = read_regular(path)
            except FileNotFoundError:  # a hand-off that nobody needs any more
                continue
            except OSError as error:
                self._fail(path, error)
                continue
            try:
                self._fs.pipe_file(self._remote(path), data)
            except Exception as error:  # of the store's library, FileNotFoundError too: the bucket is gone
                self._fail(path, error)

    def _fail(self, path: Path, error: Exception) -> None:
        self._failed.append(f"{path.name}: {in_words(error)}")
        message = f"{path.name} could not be published: {in_words(error)}"
        # where the journal cannot be written, the run finds that out itself
        with contextlib.suppress(StorageError):
            self._publisher.warning(Warned(kind="not_published", message=message))


def _is_whole(work: Work, stage: PipelineStage, item: str, key: str) -> bool:
    """Whether a result is what its names say, as far as it is here."""
    path = work.directory.handoff(stage.name, key)
    if stage.leaves_handoff and path.exists():
        try:
            handoff.read(path, key)
        except (handoff.DamagedError, OSError):
            return False
    outputs = work.files(item, stage).values() if stage.is_terminal else ()
    return all(provenance.is_whole(path, key) for path in outputs if path.exists())


@contextlib.contextmanager
def _store_errors(where: str) -> Iterator[None]:
    try:
        yield
    except StorageError:
        raise
    except Exception as error:  # of the store's library
        raise StorageError(f"[run] publish: {where} cannot be used: {in_words(error)}") from error
