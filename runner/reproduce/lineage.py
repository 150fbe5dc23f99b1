"""What an output says of itself: the stages that it came through, and what each was made from.

Anybody may have sent the file: it names stages of installed plugins and a model, and nothing in it is run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from runner.errors import StorageError, UsageError
from runner.files.provenance import read_provenance
from runner.files.storage import LFS_POINTER, is_lfs_pointer, read_ends
from runner.manifest.schema import NAME

if TYPE_CHECKING:
    from pathlib import Path


class SourceRecord(BaseModel):
    """A model's source, and what finds the same files: see :meth:`runner.model.sources.Model.record`."""

    source: str
    revision: str | None = None
    """What the manifest asked for; only earlier versions of runner tell it."""
    variant: str | None = None
    commit: str | None = None
    folder: str | None = None
    """The source, where that is as the manifest wrote it: in records of earlier versions."""

    @property
    def pinned(self) -> dict[str, str]:
        """The table of a manifest that names this very model."""
        revision = self.commit or self.revision
        told = {"source": self.folder or self.source, "revision": revision, "variant": self.variant}
        return {name: value for name, value in told.items() if value}


class StageRecord(BaseModel):
    """One stage of a lineage: the key's ingredients, and under what circumstances it ran."""

    stage: str = Field(pattern=r"^[\w.-]+$")
    version: int
    params: dict[str, Any]
    as_written: dict[str, str] = {}
    """Parameters of which the plugin's model made something other than what was written."""
    model: str
    source: SourceRecord | None
    dtype: str
    save_dtype: str | None
    inputs: dict[str, str]
    key: str
    place: int
    """Its place in the manifest."""
    versions: dict[str, str]
    device: str
    threads: int

    def takes(self) -> dict[str, tuple[str, str]]:
        """By input: the key of the stage that it comes from, and the output's name there."""
        wires = {name: wire.partition(".") for name, wire in self.inputs.items()}
        return {name: (key, output) for name, (key, _, output) in wires.items()}


class Provenance(BaseModel):
    """What an output says of itself."""

    key: str
    stage: str
    output: str
    lineage: dict[Annotated[str, Field(pattern=NAME)], StageRecord]
    sha256: str | None = None
    """Of the file, where a sidecar tells."""

    def in_order(self) -> dict[str, StageRecord]:
        """The stages as a manifest must have them: each after those that it takes from.

        Their places alone do not tell: a hand-off may be from a time when the manifest had others.

        Raises:
            ValueError: one takes from a stage that is not there.

        """
        waiting = dict(sorted(self.lineage.items(), key=lambda named: named[1].place))
        ordered: dict[str, StageRecord] = {}
        while waiting:
            made = {record.key for record in ordered.values()}
            ready = [
                n for n, record in waiting.items() if {key for key, _ in record.takes().values()} <= made
            ]
            if not ready:
                raise ValueError("a stage of its lineage is missing")
            ordered[ready[0]] = waiting.pop(ready[0])
        return ordered


def read_lineage(path: Path) -> Provenance:
    """What the file at ``path`` says of itself.

    Raises:
        UsageError: it says nothing, or nothing that can be read.
        StorageError: it cannot be read.

    """
    try:
        record = read_provenance(path)
    except FileNotFoundError:
        raise UsageError(f"there is no file {path}") from None
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from None
    if record is None and is_lfs_pointer(read_ends(path, len(LFS_POINTER), 0)[0]):
        raise UsageError(f"{path} is a pointer of git-lfs and not the file itself: run `git lfs pull`")
    if record is None:
        raise UsageError(
            f"{path} does not say what it was made from: runner did not make it, or a program that saved it "
            f"took that out (for a file that is no PNG it is in {path.name}.runner.json, beside it)"
        )
    try:
        found = Provenance.model_validate(record)
        _ = found.in_order(), found.lineage[found.stage]
    except (ValueError, LookupError) as error:
        odd = error.errors()[0]["loc"] if isinstance(error, ValidationError) else error
        raise UsageError(
            f"{path}: what it says of itself is not whole, or of another version of runner: {odd}"
        ) from None
    return found
