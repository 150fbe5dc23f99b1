"""The provenance record of an output: the stages that made it, and the inputs of each.

Records are untrusted: they name stages of installed plugins and a model, and no code in them is run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from runner.errors import StorageError, UsageError
from runner.files.provenance import read_provenance
from runner.files.storage import LFS_POINTER, is_lfs_pointer, read_ends
from runner.manifest.schema import NAME
from runner.manifest.sources import as_part

if TYPE_CHECKING:
    from pathlib import Path


class SourceRecord(BaseModel):
    """A model's source and commit: see :meth:`runner.model.sources.Model.record`."""

    source: str
    revision: str | None = None
    """As the manifest had it; only in records of earlier versions."""
    variant: str | None = None
    pipeline: str | None = None
    subfolder: str | None = None
    """Of a component from elsewhere: its folder in the source, if the manifest gave one."""
    file: str | None = None
    """Of a component from elsewhere, or of an adapter: the single file in its source."""
    components: dict[str, SourceRecord] = {}
    """The components from elsewhere that the stage loaded."""
    loras: dict[str, SourceRecord] = {}
    """The adapters that changed the stage."""
    commit: str | None = None
    folder: str | None = None
    """The model's folder; in records of earlier versions, whose ``source`` is as the manifest had it."""

    @property
    def pinned(self) -> dict[str, Any]:
        """The manifest table of exactly this model."""
        revision = self.commit or self.revision
        table = {
            "source": self.folder or self.source,
            "revision": revision,
            "variant": self.variant,
            "pipeline": self.pipeline,
            "components": self._parts,
        }
        return {name: value for name, value in table.items() if value}

    def at(self, model: str) -> dict[str, Any]:
        """The manifest table of another source for the model, with exactly the parts from elsewhere."""
        return {"source": model, **({"components": self._parts} if self.components else {})}

    @property
    def _parts(self) -> dict[str, str]:
        return {name: record.as_part for name, record in self.components.items()}

    @property
    def as_part(self) -> str:
        """The source of a component, or of an adapter, as ``[model.components]`` or ``[[lora]]`` has it."""
        if self.file and self.commit is None:
            return f"{self.source.removesuffix('/')}/{self.file}"
        return as_part(self.source, self.commit, self.file or self.subfolder)


class LoraRecord(BaseModel):
    """An adapter in a stage's key."""

    place: int
    file: str
    """The hash of its content."""
    weight: float = Field(allow_inf_nan=False)


class StageRecord(BaseModel):
    """A stage of a lineage: the inputs of its key, and the environment that it ran in."""

    stage: str = Field(pattern=r"^[\w.-]+$")
    version: int
    params: dict[str, Any]
    as_written: dict[str, Any] = {}
    """Parameters as they were written: where the plugin's model converts them, and paths of files."""
    model: str
    lora: dict[str, LoraRecord] = {}
    """The adapters that changed it, by name."""
    source: SourceRecord | None
    dtype: str
    dtypes: dict[str, str] = {}
    """Of components whose weights other stages load, by name."""
    save_dtype: str | None
    quantize: str | dict[str, str] | None = None
    inputs: dict[str, str]
    key: str
    place: int
    """Index in the manifest."""
    versions: dict[str, str]
    device: str
    threads: int

    def takes(self) -> dict[str, tuple[str, str]]:
        """By input: the key of the result that it comes from, and the name of the output."""
        wires = {name: wire.partition(".") for name, wire in self.inputs.items()}
        return {name: (key, output) for name, (key, _, output) in wires.items()}


class Provenance(BaseModel):
    """The provenance record of an output."""

    key: str
    stage: str
    output: str
    lineage: dict[Annotated[str, Field(pattern=NAME)], StageRecord]
    sha256: str | None = None
    """Of the file; only in sidecars."""

    def in_order(self) -> dict[str, StageRecord]:
        """The stages in an order for a manifest: each after those that it takes from.

        Their places are not enough: a hand-off may be of an earlier version of the manifest.

        Raises:
            ValueError: a stage takes from one that is not in the lineage.

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
    """The provenance record of a file.

    Raises:
        UsageError: the file has no record, or one that is not valid.
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
            f"{path} has no record of what it was made from: runner did not make it, or a program that saved "
            f"it removed the record (of a file that is no PNG, it is in {path.name}.runner.json, beside it)"
        )
    try:
        found = Provenance.model_validate(record)
        _ = found.in_order(), found.lineage[found.stage]
    except (ValueError, LookupError) as error:
        odd = error.errors()[0]["loc"] if isinstance(error, ValidationError) else error
        raise UsageError(
            f"{path}: its record is incomplete, or of another version of runner: {odd}"
        ) from None
    return found
