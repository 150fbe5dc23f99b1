"""The plugin's templates: each is a valid manifest for the published model that it is made for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePath

import pytest
import runner_diffusers
from published_families import FAMILIES, published
from runner_diffusers.media.inputs import look_at_files, read_files
from runner_diffusers.pipelines import source
from runner_diffusers.pipelines.examples import examples, recommend
from runner_diffusers.pipelines.signature import keywords

from runner.api import ModelFacts
from runner.manifest.schema import ModelSource
from runner.plugins import discover
from runner.tailor.changes import Change, apply
from runner.tailor.recommended import adapt
from runner.tailor.template_files import copied
from runner.tailor.templates import bind_template, choose, open_template

PLUGINS = discover()
FROM_PICTURES = ("kontext", "wan_i2v")
NAMED = {template.name: template for template in runner_diffusers.TEMPLATES}


@pytest.mark.parametrize("name", FAMILIES)
def test_it_is_valid_for_its_model(name: str, tmp_path: Path) -> None:
    """The model's class chooses it; its keywords are those of the pipeline, and nothing in it is refused."""
    folder = published(name)
    plugin, template = choose(PLUGINS, None, ModelSource(source=str(folder)), folder)
    assert template.name == name
    opened = replace(open_template(plugin, template), path=tmp_path / "made.toml")
    source = opened.table.model.source if opened.table.model else ""
    manifest = apply(opened, [Change(("model", "source"), source, str(folder))])
    manifest = adapt(manifest, plugin, template, PLUGINS).manifest
    with copied(plugin, template, manifest) as files:
        assert [file.name for file in files] == (["picture.png"] if name in FROM_PICTURES else [])
        pipeline = bind_template(plugin, template, manifest, PLUGINS)
    assert len(pipeline.items) == 2
    denoise = pipeline.stages[1]
    loaded = [component.name for component in denoise.components if not component.config_only]
    assert {"transformer", "unet", "transformer_2"} & {*loaded}
    assert denoise.given["steps"] > 0


def test_a_pipeline_that_is_for_pictures_gets_examples_of_all_that_it_needs() -> None:
    def examples_of(pipeline: str) -> dict[str, str]:
        return dict(recommend(ModelFacts(pipeline=pipeline)).shared)

    assert examples_of("FluxFillPipeline") == {"image": "picture.png", "mask_image": "mask.png"}
    assert examples_of("WanVideoToVideoPipeline") == {"video": "clip.mp4"}
    assert examples_of("FluxControlPipeline") == {"control_image": "picture.png"}
    assert examples_of("WanImageToVideoPipeline") == {"image": "picture.png"}  # not what it can do without
    assert examples_of("Flux2KleinPipeline") == {}


@pytest.mark.parametrize("name", ["FluxFillPipeline", "WanVideoToVideoPipeline"])
def test_the_examples_are_files_that_the_pipelines_take(name: str) -> None:
    files = {PurePath(file).name: file for file in runner_diffusers.EXAMPLES}
    cls = source.find(name)
    assert cls is not None
    wanted = examples(cls)
    for keyword in keywords(cls):
        if keyword.name in wanted:
            path = Path(runner_diffusers.__file__).parent / files[wanted[keyword.name]]
            look_at_files(keyword, path)
            assert read_files(keyword, path, lambda *reported: pytest.fail(str(reported))) is not None


def test_every_template_has_a_model_to_try_it_with() -> None:
    assert {*NAMED} == {*FAMILIES, "any"}


def test_any_other_pipeline_gets_the_general_one(tmp_path: Path) -> None:
    index = (published("sd3") / "model_index.json").read_text()
    (tmp_path / "model_index.json").write_text(index.replace("StableDiffusion3Pipeline", "SanaPipeline"))
    _, template = choose(PLUGINS, None, ModelSource(source=str(tmp_path)), tmp_path)
    assert template.name == "any"
    _, template = choose(PLUGINS, None, None, tmp_path)
    assert template.name == "flux"  # the others are offered for a model alone
