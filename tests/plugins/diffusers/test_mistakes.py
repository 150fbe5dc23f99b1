"""Mistakes in a manifest are reported before anything runs: where, what, and what to do."""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from pipeline_cases import CASES, manifest, write_pictures

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from project import Project


def reported(
    project: Project, tiny: Callable[[str], Path], name: str, old: str, new: str
) -> list[tuple[int, str]]:
    """The exit codes and messages of `validate` and `plan` for a case's manifest with a change."""
    write_pictures(project.folder)
    (project.folder / "broken.mp4").write_bytes(b"no video" * 100)
    text = manifest(CASES[name], tiny(CASES[name].checkpoint))
    changed = re.sub(old, new, text, flags=re.MULTILINE)
    assert changed != text
    project.write("made.toml", changed)
    outcomes = [project.invoke(command, "made.toml") for command in ("validate", "plan")]
    return [(outcome.code, outcome.stderr) for outcome in outcomes]


def place(manifest: Path, mark: str) -> str:
    """Where the text is in the file, as messages write it; nothing for no text."""
    if not mark:
        return ""
    before, _, _ = manifest.read_text().partition(mark)
    return f"{manifest.name}:{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"


@pytest.mark.parametrize(
    ("name", "old", "new", "mark", "message"),
    [
        (
            "sdxl", "guidance_scale", "guidance_scael", "guidance_scael",
            "unknown key 'guidance_scael' in [with]: no stage of this manifest has it; did you mean 'guidance_scale'?",
        ),
        ("sdxl", "^height = 64", 'height = "64"', '"64"', "'height' must be a whole number, not '64'"),
        ("sdxl", '^format = "safetensors"', 'format = "mp4"', '"mp4"', "are written as png, jpeg, webp"),
        (
            "sdxl_inpaint", "^mask_image = .*\n", "", "item]]",
            'mask_image is missing: StableDiffusionXLInpaintPipeline needs one, such as mask_image = "picture.png"',
        ),
        ("sdxl_inpaint", "mask.png", "masc.png", '"masc.png"', "masc.png; did you mean 'mask.png'?"),
        ("wan_i2v", '^image = "32.png"\n', "", "item]]", "'image' is missing: diffusers.encode needs it"),
        (
            "wan_v2v", "^video = .*", 'video = "broken.mp4"', '"broken.mp4"',
            "broken.mp4: it is damaged, or no video or sound that FFmpeg can read",
        ),
        ("wan_v2v", "^video = .*", 'video = "none.mp4"', '"none.mp4"', "'video': there is no file or folder"),
        ("flux", "^max_sequence_length = 32", "max_sequence_length = 600", "", "cannot be greater than 512 but is 600"),
    ],
)  # fmt: skip
def test_in_keywords(
    project: Project, tiny: Callable[[str], Path], name: str, old: str, new: str, mark: str, message: str
) -> None:
    """`mark` is the text of the changed manifest that the message points at."""
    for code, text in reported(project, tiny, name, old, new):
        assert code == 3, text
        assert place(project.folder / "made.toml", mark) in text
        assert message in text


@pytest.mark.parametrize(
    ("pipeline", "message"),
    [
        ("WanAnimatePipeline", "cannot be split into encode, denoise and decode: vae, the picture encoder, is called inside"),
        ("StableDiffusionXLPipelin", "has no pipeline StableDiffusionXLPipelin; did you mean StableDiffusionXLPipeline?"),
        ("StableDiffusionXLControlNetPipeline", "needs controlnet, which this model has not: name a model or a folder"),
        ("os", "the installed diffusers has no pipeline os"),
        ("AutoencoderKL", "has no pipeline AutoencoderKL"),
    ],
)  # fmt: skip
def test_in_the_pipeline(project: Project, tiny: Callable[[str], Path], pipeline: str, message: str) -> None:
    for code, text in reported(project, tiny, "sdxl", r"^\[model\]", f'[model]\npipeline = "{pipeline}"'):
        assert code == 8, text
        assert "made.toml:5" in text or "made.toml:6" in text
        assert message in text


HOSTILE: list[dict[str, Any]] = [
    {"_class_name": "system"},
    {"_class_name": ["os", "system"]},
    {"_class_name": None},
    {"unet": ["os", "system"]},
    {"unet": ["..stolen", "UNet2DConditionModel"]},
    {"unet": ["diffusers", "../../stolen"]},
    {"unet": ["stolen", "UNet2DConditionModel"]},
    {"vae": ["diffusers", "StableDiffusionXLPipeline"]},
    {"scheduler": ["subprocess", "Popen"]},
    {"scheduler": ["diffusers.utils.import_utils", "importlib"]},
    {"tokenizer": ["transformers", "pipeline"]},
]


@pytest.mark.parametrize("changes", HOSTILE, ids=json.dumps)
def test_an_index_chooses_no_code_that_is_not_a_component(
    project: Project, tiny: Callable[[str], Path], changes: dict[str, Any]
) -> None:
    folder = project.folder / "model"
    shutil.copytree(tiny("sdxl"), folder)
    (project.folder / "stolen.py").write_text("open('stolen', 'w').close()")
    (folder / "stolen.py").write_text("open('stolen', 'w').close()")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, **changes}))
    project.write("made.toml", manifest(CASES["sdxl"], folder))
    for command in ("validate", "plan"):
        outcome = project.invoke(command, "made.toml")
        assert outcome.code in (3, 8), outcome
        assert "made.toml:" in outcome.stderr
        assert "Traceback" not in outcome.stderr
    assert not (project.folder / "stolen").exists()
