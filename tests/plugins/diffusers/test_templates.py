"""The plugin's templates: each is a valid manifest for the published model that it is made for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import runner_diffusers
from published_families import FAMILIES, publish

from runner.manifest.schema import ModelSource
from runner.plugins import discover
from runner.tailor.changes import Change, apply
from runner.tailor.templates import bind_template, choose, open_template

if TYPE_CHECKING:
    from pathlib import Path

PLUGINS = discover()
NAMED = {template.name: template for template in runner_diffusers.TEMPLATES}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    for name in FAMILIES:
        publish(name, folder / name)
    return folder


@pytest.mark.parametrize("name", FAMILIES)
def test_it_is_valid_for_its_model(published: Path, name: str) -> None:
    """The model's class chooses it; its keywords are those of the pipeline, and nothing in it is refused."""
    folder = published / name
    plugin, template = choose(PLUGINS, None, ModelSource(source=str(folder)), folder)
    assert template.name == name
    opened = open_template(plugin, template)
    source = opened.table.model.source if opened.table.model else ""
    manifest = apply(opened, [Change(("model", "source"), source, str(folder))])
    pipeline = bind_template(plugin, template, manifest, PLUGINS)
    assert len(pipeline.items) == 2
    denoise = pipeline.stages[1]
    loaded = [component.name for component in denoise.components if not component.config_only]
    assert {"transformer", "unet", "transformer_2"} & {*loaded}
    assert denoise.given["steps"] > 0


def test_every_template_has_a_model_to_try_it_with() -> None:
    assert {*NAMED} == {*FAMILIES, "any"}


def test_any_other_pipeline_gets_the_general_one(published: Path, tmp_path: Path) -> None:
    index = (published / "sd3/model_index.json").read_text()
    (tmp_path / "model_index.json").write_text(index.replace("StableDiffusion3Pipeline", "SanaPipeline"))
    _, template = choose(PLUGINS, None, ModelSource(source=str(tmp_path)), tmp_path)
    assert template.name == "any"
    _, template = choose(PLUGINS, None, None, tmp_path)
    assert template.name == "flux"  # the others are offered for a model alone
