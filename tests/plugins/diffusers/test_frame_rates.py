"""The frames a second of a clip's file."""

from __future__ import annotations

from typing import Any

import pytest
from model_indexes import facts_of
from runner_diffusers.decode import frame_rate
from runner_diffusers.pipelines import params


@pytest.mark.parametrize(
    ("pipeline", "given", "fps", "expected"),
    [
        ("WanPipeline", {}, None, 16),
        ("LTXPipeline", {}, None, 25),
        ("LTX2Pipeline", {}, None, 24),
        ("StableVideoDiffusionPipeline", {}, None, 7),
        ("SkyReelsV2DiffusionForcingPipeline", {}, None, 24),
        ("LTXPipeline", {"frame_rate": 30}, None, 30),
        ("LTXPipeline", {"frame_rate": 30}, 12.5, 12.5),
    ],
)
def test_a_clip_has_the_frame_rate_of_its_pipeline_unless_fps_is_set(
    pipeline: str, given: dict[str, Any], fps: float | None, expected: float
) -> None:
    model = facts_of(pipeline, index="WanPipeline")
    stage = params.decode(model)
    values: dict[str, Any] = {} if fps is None else {"fps": fps}
    required: dict[str, Any] = {
        name: "a.png" for name, field in stage.model_fields.items() if field.is_required()
    }

    assert frame_rate(stage.model_construct(**required, **values), given) == expected
