"""What is made again when a manifest changes, and the files that come of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from PIL import Image
from pipeline_cases import CASES, manifest, write_pictures
from runner_diffusers.media.clips import read_clip
from stages_here import run_stages

from runner.events import ItemFinished

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from project import Project

FORMAT = 'format = "safetensors"'


def stages(path: Path, text: str) -> list[str]:
    """The stages that compute something for the manifest."""
    path.write_text(text)
    return [event.stage for event in run_stages(path) if isinstance(event, ItemFinished)]


def test_a_change_is_made_again_from_the_first_stage_that_it_concerns(
    pictures: Path, tiny: Callable[[str], Path]
) -> None:
    path = pictures / "made.toml"
    text = manifest(CASES["sdxl"], tiny("sdxl"))
    assert stages(path, text) == ["encode", "denoise", "decode"]
    assert stages(path, text) == []
    scheduler = 'name = "denoise"\nwith = { scheduler = { class = "UniPCMultistepScheduler" } }'
    for old, new in (
        ("num_inference_steps = 4", "num_inference_steps = 2"),
        ("num_inference_steps = 4", "steps = 3"),
        ("guidance_rescale = 0.5", "guidance_rescale = 0.1"),
        ("seed = 7", "seed = 8"),
        ('name = "denoise"', scheduler),
    ):
        assert stages(path, text.replace(old, new)) == ["denoise", "decode"], new
    for new in ('format = "png"', f"{FORMAT}\ntiling = 64", 'format = "webp"'):
        assert stages(path, text.replace(FORMAT, new)) == ["decode"], new
    assert stages(path, text.replace("a red circle", "a blue circle")) == ["encode", "denoise", "decode"]


def test_a_picture_is_known_by_what_it_holds(pictures: Path, tiny: Callable[[str], Path]) -> None:
    path = pictures / "made.toml"
    text = manifest(CASES["sdxl_img2img"], tiny("sdxl"))
    assert stages(path, text) == ["encode", "denoise", "decode"]
    (pictures / "64.png").rename(pictures / "renamed.png")
    assert stages(path, text.replace("64.png", "renamed.png")) == []
    Image.new("RGB", (64, 64), "red").save(pictures / "renamed.png")
    assert stages(path, text.replace("64.png", "renamed.png")) == ["encode", "denoise", "decode"]


@pytest.mark.parametrize("suffix", ["mp4", "gif"])
def test_a_clip_is_a_file_that_can_be_read(pictures: Path, tiny: Callable[[str], Path], suffix: str) -> None:
    path = pictures / "made.toml"
    stages(path, manifest(CASES["wan21"], tiny("wan21")).replace(FORMAT, f'format = "{suffix}"\nfps = 8'))
    (clip,) = (pictures / "runs/made/outputs").glob(f"*.{suffix}")
    frames = read_clip(clip).frames
    assert len(frames) == 9
    assert {frame.size for frame in frames} == {(32, 32)}
    lineage = json.loads(clip.with_name(f"{clip.name}.runner.json").read_text())["lineage"]
    assert lineage["denoise"]["params"]["num_inference_steps"] == 4
    assert lineage["decode"]["params"]["fps"] == 8


def test_a_picture_is_made_again_to_the_same_bytes(project: Project, tiny: Callable[[str], Path]) -> None:
    write_pictures(project.folder)
    text = manifest(CASES["sdxl_inpaint"], tiny("sdxl")).replace(FORMAT, 'format = "png"')
    path = project.write("made.toml", text)
    run_stages(path)
    (picture,) = (project.folder / "runs/made/outputs").glob("*.png")
    with Image.open(picture) as opened:
        assert (opened.size, opened.mode) == ((64, 64), "RGB")

    again = project.runner("reproduce", str(picture), "-o", "again.png")

    assert again.code == 0, again
    assert (project.folder / "again.png").read_bytes() == picture.read_bytes()


def test_the_plugin_keeps_what_the_engine_requires(project: Project, tiny: Callable[[str], Path]) -> None:
    project.write("made.toml", manifest(CASES["sd15"], tiny("sd15")))
    outcome = project.runner("plugins", "check", "diffusers", "--manifest", "made.toml")
    assert outcome.code == 0, outcome
    shown = project.invoke("plugins", "show", "diffusers.encode")
    assert shown.code == 0, shown
    assert "encoded" in shown.stdout
