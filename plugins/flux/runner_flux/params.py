"""The parameters of the stages. Imported by the supervisor: no torch here."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

# a side is packed in 2 x 2 patches of latents, each of 8 x 8 pixels
Side = Annotated[int, Field(ge=16, le=16384, multiple_of=16, description="pixels, a multiple of 16")]
Scale = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]


class Params(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Encode(Params):
    """Parameters of ``flux.encode``."""

    prompt: str = Field(min_length=1, description="what to draw")
    prompt_2: str | None = Field(None, description="the prompt for T5, if another than CLIP's")
    negative_prompt: str | None = Field(None, description="what not to draw; needs true_cfg_scale over 1")
    negative_prompt_2: str | None = Field(None, description="the negative prompt for T5")
    max_sequence_length: int = Field(512, ge=1, le=512, description="tokens of T5 (schnell: 256)")


class Diffuse(Params):
    """Parameters of ``flux.diffuse``."""

    seed: int = Field(0, ge=0, lt=2**64, description="of the noise that the picture starts from")
    steps: int = Field(28, ge=1, le=1000, description="denoising steps (schnell: 4)")
    guidance_scale: Scale = Field(3.5, description="distilled guidance (schnell has none)")
    true_cfg_scale: Scale = Field(1.0, description="over 1: guidance away from the negative prompt")
    height: Side = 1024
    width: Side = 1024


class Decode(Params):
    """Parameters of ``flux.decode``."""

    tiling: Literal["auto", "off"] | Annotated[int, Field(ge=128, multiple_of=64)] = Field(
        "auto",
        description="auto | off | tile size in pixels; auto tiles pictures over 1024 x 1024",
        json_schema_extra={
            "less_memory": [512, 256],
            "less_memory_costs": "seams between tiles are blended, other pixels",
        },
    )
