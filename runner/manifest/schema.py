"""Pydantic models of the manifest's tables. Plugins' models check parameters."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, WithJsonSchema

from runner.accelerator import names
from runner.declarations import LOCAL
from runner.units import DURATION_UNITS, parse_duration, parse_size

SEED_LIMIT = 2**64
STAGES_LIMIT = 1000
LORAS_LIMIT = 100
UNKNOWN = "?"
"""Placeholder for a missing or wrong ``uses`` or ``source``, so that the rest can be checked."""

NAME_LIMIT = 100  # characters
NAME = r"^[A-Za-z0-9_-]{1,100}$"
FILE_NAME = r"^\.*[A-Za-z0-9_-][A-Za-z0-9._-]*$"  # at most NAME_LIMIT long; never dots alone
DEVICE = names.PATTERN
VARIANT = r"^[A-Za-z0-9_-]+$"
CLASS = r"^[A-Za-z][A-Za-z0-9_]*$"
URL = r"^[a-z][a-z0-9+.-]*://\S+$"
PATTERNS = {
    URL: 'a URL, such as "s3://bucket/prefix"',
    NAME: "1 to 100 of A-Z a-z 0-9 _ -",
    FILE_NAME: "a file name of A-Z a-z 0-9 . _ -",
    VARIANT: 'a part of file names, such as "fp16"',
    CLASS: 'the name of a class, such as "FluxKontextPipeline"',
    DEVICE: names.CHOICES,
}
"""Descriptions of the patterns for error messages."""

Dtype = Literal["float32", "bfloat16", "float16"]
Placement = Literal[
    "auto",
    "resident",
    "stream",
    "device-map",
    "model-offload",
    "sequential-offload",
    "group-offload",
]

Quantize = Literal["int8", "fp8"]

_MORE_THAN_NOTHING = r"(\d*[1-9]\d*(\.\d+)?|0+\.\d*[1-9]\d*)"
_SIZE_SCHEMA = {"type": "string", "pattern": rf"^\s*{_MORE_THAN_NOTHING}\s*([KMGT]i?B|B)\s*$"}
_DURATION_SCHEMA = {
    "anyOf": [
        {"type": "number", "exclusiveMinimum": 0},
        {"type": "string", "pattern": rf"^\s*{_MORE_THAN_NOTHING}\s*({'|'.join(DURATION_UNITS)})\s*$"},
    ]
}
Size = Annotated[int, BeforeValidator(parse_size), WithJsonSchema(_SIZE_SCHEMA)]
Duration = Annotated[float, BeforeValidator(parse_duration), WithJsonSchema(_DURATION_SCHEMA)]


class Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)


class Source(Table):
    """Where files are loaded from."""

    source: str = Field(
        min_length=1,
        description="a hub id, a folder starting with . / or ~, or plugin:NAME/FOLDER",
    )
    revision: str | None = Field(None, description="a hub branch, tag or commit")
    variant: str | None = Field(
        None, pattern=VARIANT, description='preferred weight files: "fp16" for *.fp16.safetensors'
    )


class ModelSource(Source):
    """The model that weights are loaded from."""

    pipeline: str | None = Field(
        None,
        pattern=CLASS,
        description="another pipeline class for the same weights than model_index.json names",
    )
    config: str | None = Field(
        None,
        min_length=1,
        description="of a model that is one file of weights: the folder or hub id with its configs and "
        "tokenizers; default: as diffusers knows",
    )
    components: dict[str, Annotated[str, Field(min_length=1)]] = Field(
        default_factory=dict,
        description="components from elsewhere, by name: a folder, a hub id, ID[@REVISION][:SUBFOLDER], "
        "or a file of weights: ./FILE or ID[@REVISION]:FILE (.safetensors, .gguf)",
    )

    _checkpoint: str | None = PrivateAttr(None)

    @property
    def checkpoint(self) -> str | None:
        """The whole checkpoint in one file that this was, before it was split into its components."""
        return self._checkpoint

    def of_checkpoint(self, file: str) -> ModelSource:
        """The same, which was this file."""
        made = self.model_copy()
        made._checkpoint = file  # noqa: SLF001 - of this class
        return made

    def __hash__(self) -> int:
        """Without the components, which are a dictionary; they count for equality."""
        return hash((self.source, self.revision, self.variant, self.pipeline))


class PartSource(Source):
    """Where one component is loaded from that ``[model.components]`` names.

    ``variant`` is the model's: preferred here too, and plain files are loaded if there are none of it.
    """

    component: str
    subfolder: str | None = None
    """Where it is in the source, if the manifest says so."""
    file: str | None = None
    """A single file there that has its weights; its config is the model's own."""


class LoraSource(Source):
    """The file of a ``[[lora]]``: ``source`` is its path, or a hub id, and ``file`` its path there."""

    file: str | None = None
    """None for a file on this machine."""


class LoraTable(Table):
    """One ``[[lora]]``: an adapter of the model's transformers, UNet and text encoders."""

    source: str = Field(
        min_length=1, description="a .safetensors file, or one on the hub: ID[@REVISION]:FILE"
    )
    weight: float = Field(
        1.0,
        allow_inf_nan=False,
        description="its strength; an item's `lora_weights = { NAME = 0.5 }` overrides",
    )
    name: str | None = Field(
        None,
        min_length=1,
        max_length=NAME_LIMIT,
        description="its name; default: the file's without extension",
    )


class Budget(Table):
    """Device and resource limits of each worker."""

    device: str = Field("auto", pattern=DEVICE, description="auto | cpu | cuda[:N] | xpu[:N] | mps | sim[:N]")
    vram: Size | None = Field(None, description="limit on device memory, such as 8GiB")
    ram: Size | None = Field(None, description="limit on the worker's memory, such as 30GiB")
    threads: int | None = Field(None, ge=1, description="CPU threads; default: all cores")


class StageTable(Table):
    """One ``[[stage]]``."""

    name: str = Field(pattern=NAME, description="the stage's name in this manifest")
    uses: str = Field(min_length=1, description="PLUGIN.STAGE, as `runner plugins list` shows")
    dtype: Dtype = Field("float32", description="dtype of the computation")
    save_dtype: Dtype | None = Field(None, description="dtype of the hand-offs; default: as computed")
    placement: Placement = Field("auto", description="where weights live and how they reach the device")
    device_map: dict[str, str | int] | None = Field(None, description="a custom device map")
    quantize: Quantize | dict[str, Quantize] | None = Field(
        None, description="quantise the weights once, into the cache: int8 or fp8, or a table by component"
    )
    timeout: Duration | None = Field(None, description='time limit per item: seconds, "30m", "2h"')
    retries: int = Field(0, ge=0, le=100, description="how often a failed item is retried")
    budget: Budget | None = Field(None, description="overrides [budget] for this stage")
    model: ModelSource | None = Field(None, description="overrides [model] for this stage")
    with_: dict[str, Any] = Field(
        default_factory=dict, alias="with", description="the stage's own parameters; they override [with]"
    )
    from_: dict[str, str] = Field(
        default_factory=dict,
        alias="from",
        description="inputs renamed: input = output, or stage.output",
    )


class Batch(Table):
    """Sources of items besides ``[[item]]``."""

    file: str | None = Field(None, description="a .jsonl, .csv or .txt file of items")
    prompts: list[str] = Field(default_factory=list, description="list of prompts")
    seeds: list[Annotated[int, Field(ge=0, lt=SEED_LIMIT)]] = Field(
        default_factory=list, description="each prompt is run with each seed"
    )


class ExecutorTable(Table):
    """Who runs the stages. Keys besides ``uses`` are the executor's own parameters (``model_extra``)."""

    model_config = ConfigDict(extra="allow")

    uses: str = Field(
        LOCAL, min_length=1, description="who runs the stages: local, or an installed executor such as ray"
    )

    @property
    def parameters(self) -> dict[str, Any]:
        return self.model_extra or {}


class RunTable(Table):
    """Settings of the run itself."""

    on_oom: Literal["lower", "fail"] = Field(
        "lower", description="after out of memory: retry with a lower placement, or stop"
    )
    checkpoint_every: int = Field(5, ge=1, description="steps between saved states")
    keep_handoffs: Literal["all", "needed"] = Field("all", description="which hand-offs stay on disk")
    publish: str | None = Field(
        None, pattern=URL, description="where outputs are put as well, such as s3://BUCKET/PREFIX"
    )
    publish_handoffs: bool = Field(False, description="whether hand-offs are published too")


def _whole(version: Any) -> Any:
    """Refuse ``true`` and ``1.0``, which Python takes for 1."""
    if type(version) is not int:
        raise ValueError("must be 1")
    return version


class ManifestTable(Table):
    """The whole manifest."""

    version: Annotated[Literal[1], BeforeValidator(_whole)]
    name: str = Field(pattern=FILE_NAME, max_length=NAME_LIMIT, description="names the run directory")
    model: ModelSource | None = None
    budget: Budget = Field(default_factory=Budget)
    with_: dict[str, Any] = Field(
        default_factory=dict, alias="with", description="parameters of every stage that declares them"
    )
    stage: list[StageTable] = Field(min_length=1, max_length=STAGES_LIMIT)
    lora: list[LoraTable] = Field(default_factory=list, max_length=LORAS_LIMIT)
    batch: Batch = Field(default_factory=Batch)
    item: list[dict[str, Any]] = Field(default_factory=list)
    run: RunTable = Field(default_factory=RunTable)
    executor: ExecutorTable = Field(default_factory=ExecutorTable)

    def budget_of(self, stage: StageTable) -> Budget:
        """The manifest's budget with the stage's overrides."""
        own = stage.budget.model_dump(exclude_unset=True) if stage.budget else {}
        return self.budget.model_copy(update=own)

    def parameters_of(self, stage: StageTable) -> dict[str, Any]:
        """The values of ``[with]``, overridden by those of ``[stage.with]``."""
        return {**self.with_, **stage.with_}

    def model_of(self, stage: StageTable) -> ModelSource | None:
        """The stage's own model, else the manifest's."""
        return stage.model or self.model
