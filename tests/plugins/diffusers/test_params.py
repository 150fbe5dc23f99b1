"""The parameters of each stage: what they accept, what they refuse and how, and their canonical form."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from model_indexes import INDEXES, facts_of
from pydantic import ValidationError
from runner_diffusers.pipelines import params, source

from runner.manifest.explain import explain
from runner.manifest.params import RawParams, canonical, names_of, validate

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.api import ModelFacts

STAGES: dict[str, Callable[[ModelFacts], type[params.PipelineParams]]] = {
    "encode": params.encode,
    "denoise": params.denoise,
    "decode": params.decode,
}
FILES = {"WanImageToVideoPipeline": {"image": "fox.png"}}


@pytest.fixture(autouse=True)
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the pictures that the parameters name, which is the current one."""
    for name in ("fox.png", "a.png", "b.png"):
        (tmp_path / name).write_bytes(b"a picture")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def bound(stage: str, pipeline: str, **values: Any) -> dict[str, Any]:
    return canonical(made(stage, pipeline, **values))


def made(stage: str, pipeline: str, **values: Any) -> params.PipelineParams:
    model = STAGES[stage](facts_of(pipeline))
    given = {**FILES.get(pipeline, {}), **values}
    instance = validate(model, RawParams(given, folders=dict.fromkeys(given, Path.cwd())))
    assert isinstance(instance, params.PipelineParams)
    return instance


def refused(stage: str, pipeline: str, **values: Any) -> str:
    with pytest.raises(ValidationError) as raised:
        made(stage, pipeline, **values)
    details = raised.value.errors(include_url=False)
    return "; ".join(explain(one, name=str(one["loc"][0]) if one["loc"] else "") for one in details)


@pytest.mark.parametrize("pipeline", INDEXES)
def test_encode_has_prompts_and_not_what_only_the_loop_needs(pipeline: str) -> None:
    names = set(names_of(params.encode(facts_of(pipeline))))
    assert "prompt" in names
    assert not names & {"steps", "num_inference_steps", "seed", "scheduler", "sigmas", "timesteps", "eta"}
    assert not names & {"tiling", "format", "fps", "decode_timestep"}


@pytest.mark.parametrize("pipeline", INDEXES)
def test_denoise_has_every_keyword_of_encode_the_seed_and_the_scheduler(pipeline: str) -> None:
    names = set(names_of(params.denoise(facts_of(pipeline))))
    assert set(names_of(params.encode(facts_of(pipeline)))) <= names
    assert {"seed", "steps", "num_inference_steps", "scheduler"} <= names


@pytest.mark.parametrize("pipeline", INDEXES)
def test_decode_has_the_output_and_the_files(pipeline: str) -> None:
    names = set(names_of(params.decode(facts_of(pipeline))))
    assert {"tiling", "format"} <= names
    assert "prompt" not in names
    assert ("image" in names) == ("image" in names_of(params.denoise(facts_of(pipeline))))


@pytest.mark.parametrize("pipeline", INDEXES)
@pytest.mark.parametrize("stage", STAGES)
def test_defaults_are_valid_and_no_arguments(pipeline: str, stage: str, pictures: Path) -> None:
    instance = made(stage, pipeline)
    assert instance.arguments() == {name: pictures / file for name, file in FILES.get(pipeline, {}).items()}
    assert instance.pipeline == pipeline


def test_models_are_made_once() -> None:
    assert params.denoise(facts_of("WanPipeline")) is params.denoise(facts_of("WanPipeline"))


def test_steps_and_num_inference_steps_are_the_same() -> None:
    assert bound("denoise", "WanPipeline", steps=7) == bound("denoise", "WanPipeline", num_inference_steps=7)
    assert made("denoise", "WanPipeline", steps=7).arguments() == {"num_inference_steps": 7}
    assert bound("denoise", "WanPipeline")["steps"] == 50
    assert bound("denoise", "WanPipeline", steps=50) == bound("denoise", "WanPipeline")
    message = refused("denoise", "WanPipeline", steps=7, num_inference_steps=8)
    assert message == "steps and num_inference_steps are the same: give one of them"


def test_arguments_are_what_differs_from_the_pipeline() -> None:
    given = made("denoise", "WanPipeline", prompt="", guidance_scale=4, height=480, seed=7, num_frames=33)
    assert given.arguments() == {"prompt": "", "guidance_scale": 4.0, "num_frames": 33}


def test_lists_become_the_tuples_that_pipelines_take() -> None:
    given = made("denoise", "StableDiffusionXLPipeline", original_size=[512, 768])
    assert given.arguments() == {"original_size": (512, 768)}


def test_several_pictures_are_a_list(pictures: Path) -> None:
    given = made("encode", "Flux2KleinPipeline", image=["a.png", "b.png"])
    assert given.arguments() == {"image": [pictures / "a.png", pictures / "b.png"]}


@pytest.mark.parametrize(
    ("pipeline", "values", "message"),
    [
        ("WanImageToVideoPipeline", {"image": 7}, "'image' must be a string, not 7"),
        ("WanPipeline", {"num_frames": 8.5}, "'num_frames' must be a whole number, not 8.5"),
        ("WanPipeline", {"num_frames": "81"}, "'num_frames' must be a whole number, not '81'"),
        ("WanPipeline", {"num_frames": 0}, "greater than or equal to 1"),
        ("WanPipeline", {"guidance_scale": "high"}, "'guidance_scale' must be a number, not 'high'"),
        ("WanPipeline", {"guidance_scale": True}, "'guidance_scale' must be a number, not true"),
        ("WanPipeline", {"prompt": ["a", "b"]}, "'prompt' must be a string, not a list"),
        ("WanPipeline", {"seed": -1}, "greater than or equal to 0"),
        ("WanPipeline", {"seed": 2**64}, "less than 18446744073709551616"),
        ("WanPipeline", {"steps": 0}, "greater than or equal to 1"),
        ("WanPipeline", {"attention_kwargs": 3}, "'attention_kwargs' must be a table, not 3"),
        ("StableDiffusionXLPipeline", {"original_size": [512]}, "original_size"),
        ("WanPipeline", {"latents": "x.safetensors"}, "extra inputs are not permitted"),
        ("WanPipeline", {"num_videos_per_prompt": 2}, "extra inputs are not permitted"),
    ],
)
def test_wrong_values_are_refused(pipeline: str, values: dict[str, Any], message: str) -> None:
    assert message in refused("denoise", pipeline, **values)


def test_a_picture_without_default_is_asked_for() -> None:
    with pytest.raises(ValidationError) as raised:
        validate(params.encode(facts_of("WanImageToVideoPipeline")), RawParams({"prompt": "a fox"}))
    assert [(one["type"], one["loc"]) for one in raised.value.errors()] == [("missing", ("image",))]


def test_a_scheduler_replaces_the_models() -> None:
    chosen = {"class": "UniPCMultistepScheduler", "flow_shift": 5.0}
    assert bound("denoise", "WanPipeline", scheduler=chosen)["scheduler"] == chosen
    assert bound("denoise", "WanPipeline", scheduler={"flow_shift": 3})["scheduler"] == {"flow_shift": 3}
    assert bound("denoise", "WanPipeline")["scheduler"] is None
    assert "scheduler" not in made("denoise", "WanPipeline", scheduler=chosen).arguments()


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        (
            {"class": "EulerDiscretScheduler"},
            "no scheduler 'EulerDiscretScheduler'; did you mean EulerDiscreteScheduler?",
        ),
        ({"class": "os"}, "no scheduler 'os'"),
        ({"class": "AutoencoderKL"}, "no scheduler 'AutoencoderKL'"),
        ({"class": "../evil"}, "no scheduler"),
        ({"class": 7}, "class must be the name of a scheduler"),
        (
            {"flow_shit": 5.0},
            "option 'flow_shit' is none of UniPCMultistepScheduler's; did you mean flow_shift?",
        ),
        ({"class": "DDIMScheduler", "flow_shift": 5.0}, "option 'flow_shift' is none of DDIMScheduler's"),
        ({"flow_shift": "five"}, "flow_shift of UniPCMultistepScheduler must be a valid number, not 'five'"),
        ({"use_flow_sigmas": 1}, "use_flow_sigmas of UniPCMultistepScheduler must be a valid boolean"),
        ({"self": 1}, "option 'self' is none of"),
        ("UniPCMultistepScheduler", "'scheduler' must be a table"),
    ],
)
def test_schedulers_and_options_that_do_not_exist_are_refused(scheduler: Any, message: str) -> None:
    assert message in refused("denoise", "WanPipeline", scheduler=scheduler)


@pytest.mark.parametrize(
    ("name", "package"), [("DPMSolverSDEScheduler", "torchsde"), ("LMSDiscreteScheduler", "scipy")]
)
def test_a_scheduler_whose_package_is_missing_is_refused(
    name: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "find_spec", lambda asked: None if asked == package else True)
    source.missing_packages.cache_clear()
    message = refused("denoise", "StableDiffusionXLPipeline", scheduler={"class": name})
    source.missing_packages.cache_clear()
    assert f"what {name} needs is not installed here: pip install {package}" in message


@pytest.mark.parametrize(
    ("pipeline", "given", "written"),
    [
        ("FluxPipeline", "auto", "png"),
        ("FluxPipeline", "webp", "webp"),
        ("WanPipeline", "auto", "mp4"),
        ("WanPipeline", "gif", "gif"),
        ("StableAudioPipeline", "auto", "wav"),
        ("StableAudioPipeline", "safetensors", "safetensors"),
    ],
)
def test_the_canonical_format_is_a_suffix(pipeline: str, given: str, written: str) -> None:
    assert bound("decode", pipeline, format=given)["format"] == written
    if given == "auto":
        assert bound("decode", pipeline)["format"] == written


@pytest.mark.parametrize(
    ("pipeline", "given", "message"),
    [
        (
            "FluxPipeline",
            "mp4",
            "the pictures of FluxPipeline are written as png, jpeg, webp, safetensors, not as mp4",
        ),
        ("WanPipeline", "png", "the clips of WanPipeline are written as mp4, gif, safetensors, not as png"),
        (
            "StableAudioPipeline",
            "mp4",
            "the sounds of StableAudioPipeline are written as wav, safetensors, not as mp4",
        ),
        (
            "LTX2Pipeline",
            "gif",
            'LTX2Pipeline are written as mp4, safetensors, not as gif: set format = "mp4"',
        ),
        ("FluxPipeline", "pngs", "did you mean 'png'?"),
    ],
)
def test_formats_of_other_media_are_refused(pipeline: str, given: str, message: str) -> None:
    assert message in refused("decode", pipeline, format=given)


def test_layers_are_written_as_numbers_alone() -> None:
    stage = params.decode(facts_of("QwenImageLayeredPipeline", index="FluxPipeline"))

    assert stage().model_dump()["format"] == "safetensors"
    with pytest.raises(ValidationError, match='not as webp: set format = "safetensors"'):
        stage.model_validate({"format": "webp"})


def test_clips_have_a_frame_rate_and_tiles_in_time() -> None:
    wan = bound("decode", "WanPipeline", temporal=16)
    assert (wan["fps"], wan["temporal"], wan["tiling"]) == (16.0, 16, "auto")
    assert bound("decode", "LTX2Pipeline")["fps"] is None  # it has a frame_rate of its own
    assert not {"fps", "temporal"} & bound("decode", "FluxPipeline").keys()
    assert "greater than 0" in refused("decode", "WanPipeline", fps=0)
    assert "did you mean 'off'?" in refused("decode", "WanPipeline", tiling="of")


def test_fields_are_described_for_users() -> None:
    schema = params.denoise(facts_of("WanPipeline")).model_json_schema()
    described = [name for name, one in schema["properties"].items() if one.get("description")]
    assert {"prompt", "num_frames", "seed", "scheduler", "steps", "guidance_scale"} <= set(described)
