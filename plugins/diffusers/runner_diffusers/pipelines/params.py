"""The parameters of each stage, for the pipeline of a model: pydantic models made from its signature."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    JsonValue,
    create_model,
    model_validator,
)

from runner_diffusers.media.formats import FORMATS, Format, Kind, refusal
from runner_diffusers.pipelines import schedulers, source
from runner_diffusers.pipelines.components import component_entries, init_values, pipeline_class
from runner_diffusers.pipelines.signature import keywords, made

if TYPE_CHECKING:
    from runner.api import ModelFacts
    from runner_diffusers.pipelines.signature import Keyword
    from runner_diffusers.pipelines.source import SourceClass

STEPS, ITS_STEPS = "steps", "num_inference_steps"
RATES = ("frame_rate", "fps")
"""Keywords by which pipelines take a clip's frames a second."""
DEFAULT_FPS = 16.0
"""Frames a second of clips whose pipeline has no such keyword."""

AFTER_ENCODING = frozenset(
    {
        *(ITS_STEPS, "timesteps", "sigmas", "eta", "guidance_scale_2", "guidance_rescale"),
        *(
            "audio_guidance_rescale",
            "cfg_truncation",
            "cfg_trunc_ratio",
            "cfg_normalization",
            "use_dynamic_cfg",
        ),
        *("control_guidance_start", "control_guidance_end", "controlnet_conditioning_scale"),
        *("pag_adaptive_scale", "decode_timestep", "decode_noise_scale", "decode_chunk_size"),
    }
)
"""Keywords that change the loop or what comes after it, and nothing that the encode stage computes."""

SEEDED_ENCODING = frozenset(
    {
        "StableVideoDiffusionPipeline",  # noise is added to the picture before the VAE encodes it
        "GlmImagePipeline",  # its encoder samples tokens of the picture
    }
)
"""Pipelines whose encodings depend on the seed: with another one, they are made anew."""

SEED = (int, Field(0, ge=0, lt=2**64, description="of the noise that the result starts from"))
AT_LEAST_1 = ("height", "width", "num_frames", "max_sequence_length", ITS_STEPS)
TILE = 64  # pixels, the smallest tile


class PipelineParams(BaseModel):
    """What the parameters of all stages have in common."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())
    pipeline: ClassVar[str] = ""
    """Name of the pipeline's class."""
    init_values: ClassVar[Mapping[str, Any]] = {}
    """What the model's index gives to the pipeline's `__init__` besides components."""

    @classmethod
    def pipeline_source(cls) -> SourceClass:
        """The source of the pipeline's class."""
        found = source.find(cls.pipeline)
        assert found is not None, "the parameters were made from it"  # noqa: S101
        return found

    @classmethod
    def file_keywords(cls) -> tuple[Keyword, ...]:
        """The keywords that are files."""
        return tuple(one for one in keywords(cls.pipeline_source()) if one.file)

    def arguments(self) -> dict[str, Any]:
        """The keywords of the pipeline's `__call__` that differ from its defaults."""
        offered = keywords(self.pipeline_source())
        own = [one for one in offered if one.attribute in type(self).model_fields]
        values = {one.name: getattr(self, one.attribute) for one in own}
        defaults = {one.name: one.default for one in offered}
        return {name: value for name, value in values.items() if value != defaults[name]}


class LoopParams(PipelineParams):
    """The parameters of the denoise stage: ``steps`` is another name of ``num_inference_steps``."""

    @model_validator(mode="after")
    def _same_steps(self) -> Self:
        given = [name for name in (STEPS, ITS_STEPS) if name in self.model_fields_set]
        if ITS_STEPS not in type(self).model_fields or not given:
            return self
        values = {getattr(self, name) for name in given}
        if len(values) > 1:
            raise ValueError(f"{STEPS} and {ITS_STEPS} are the same: give one of them")
        for name in (STEPS, ITS_STEPS):
            object.__setattr__(self, name, next(iter(values)))
        return self


class OutputParams(PipelineParams):
    """The parameters of the decode stage: all but the files are its own, whatever keywords are called."""

    def arguments(self) -> dict[str, Any]:
        """The keywords of the pipeline's `__call__` that are files."""
        files = {one.name for one in self.file_keywords()}
        return {name: value for name, value in super().arguments().items() if name in files}


def encode(model: ModelFacts) -> type[PipelineParams]:
    """The parameters of ``diffusers.encode``: the keywords that the encodings depend on."""
    return _encode(pipeline_class(model))


def denoise(model: ModelFacts) -> type[PipelineParams]:
    """The parameters of ``diffusers.denoise``: all keywords, the seed and the scheduler."""
    scheduler = component_entries(model).get("scheduler")
    values = json.dumps(init_values(model), sort_keys=True)
    return _denoise(pipeline_class(model), scheduler.name if scheduler else "", values)


def decode(model: ModelFacts) -> type[PipelineParams]:
    """The parameters of ``diffusers.decode``: tiles, the format, and the keywords that are files."""
    return _decode(pipeline_class(model))


@cache
def _encode(cls: SourceClass) -> type[PipelineParams]:
    fields = {one.attribute: _field(one) for one in keywords(cls) if one.name not in AFTER_ENCODING}
    if cls.name in SEEDED_ENCODING:
        fields["seed"] = SEED
    return _made("Encode", cls, PipelineParams, fields)


@cache
def _denoise(cls: SourceClass, scheduler: str, values: str) -> type[PipelineParams]:
    fields = {one.attribute: _field(one) for one in keywords(cls)}
    if ITS_STEPS in fields:
        fields[STEPS] = fields[ITS_STEPS]

    def checked(given: dict[str, JsonValue] | None) -> dict[str, JsonValue] | None:
        return None if given is None else schedulers.checked(given, scheduler)

    fields["seed"] = SEED
    fields["scheduler"] = (
        Annotated[dict[str, JsonValue] | None, AfterValidator(checked)],
        Field(
            None, description="class: a scheduler of diffusers, in place of the model's; and options of it"
        ),
    )
    made = _made("Denoise", cls, LoopParams, fields)
    made.init_values = json.loads(values)
    return made


@cache
def _decode(cls: SourceClass) -> type[PipelineParams]:
    fields = {one.attribute: _field(one) for one in keywords(cls) if one.file}
    kinds = made(cls)
    formats = FORMATS[kinds]

    def concrete(given: str) -> str:
        if given == "auto":
            return formats[0]
        if reason := refusal(given, kinds, cls.name):
            raise ValueError(reason)
        return given

    fields["tiling"] = (
        Literal["auto", "off"] | Annotated[int, Field(ge=TILE)],
        Field(
            "auto",
            description="auto | off | tile size in pixels of the VAE",
            json_schema_extra={
                "less_memory": [512, 256],
                "less_memory_costs": "seams between tiles are blended, other pixels",
            },
        ),
    )
    fields["format"] = (
        Annotated[Literal["auto", Format], AfterValidator(concrete)],
        Field("auto", validate_default=True, description=f"auto | {' | '.join(formats)}"),
    )
    if Kind.CLIP in kinds:
        fields["temporal"] = (
            Literal["auto", "off"] | Annotated[int, Field(ge=1)],
            Field("auto", description="auto | off | frames of a tile in time"),
        )
        fields["fps"] = _frame_rate(cls)
    return _made("Decode", cls, OutputParams, fields)


def _frame_rate(cls: SourceClass) -> tuple[Any, Any]:
    own = next((one.name for one in keywords(cls) if one.name in RATES), None)
    if own is None:
        return FiniteFloat, Field(DEFAULT_FPS, gt=0, description="frames a second of the file")
    words = f"frames a second of the file; by default what the pipeline has as {own}"
    return FiniteFloat | None, Field(None, gt=0, description=words)


def _field(keyword: Keyword) -> tuple[Any, Any]:
    """A keyword's type and field."""
    least = 1 if keyword.name in AT_LEAST_1 else None
    description = keyword.description or None
    alias = keyword.name if keyword.name != keyword.attribute else None
    if keyword.required:
        return keyword.type, Field(alias=alias, description=description, ge=least)
    kind = keyword.type if keyword.default is not None else keyword.type | None
    return kind, Field(keyword.default, alias=alias, description=description, ge=least)


def _made(
    stage: str, cls: SourceClass, base: type[PipelineParams], fields: dict[str, tuple[Any, Any]]
) -> type[PipelineParams]:
    definitions: dict[str, Any] = fields
    made = create_model(f"{stage}{cls.name}", __base__=base, __module__=__name__, **definitions)
    made.pipeline = cls.name
    made.__doc__ = f"Parameters of diffusers.{stage.lower()} for {cls.name}."
    return made
