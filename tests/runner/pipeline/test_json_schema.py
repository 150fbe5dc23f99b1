"""The schema for editors: it accepts what ships, and refuses what is wrong by itself where it stands."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import tomli
import toy_plugin
from broken_manifests import GOOD, TABLES
from jsonschema import Draft7Validator
from project import Project

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3]
SHIPPED = [*sorted((ROOT / "manifests").glob("*.toml")), ROOT / "plugins/flux/runner_flux/new.toml"]

NO_TOML = {"syntax", "unclosed string", "key twice"}
# what depends on the whole manifest, the command line or the disk: `runner validate` checks it
BEYOND_A_SCHEMA = {
    "a map's tier",
    "two stages of a name",
    "empty batch",  # --prompt may bring one
    "missing item file",
    "item without its prompt",
    "id twice",
}


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """As the command writes it, with the toy plugin."""
    project = Project(tmp_path_factory.mktemp("schema"))
    project.plugin("toy", toy_plugin.TOY)
    outcome = project.runner("schema", "-o", "runner.schema.json")
    assert outcome.code == 0, outcome
    assert "a manifest beside it starts with: #:schema ./runner.schema.json" in outcome.stderr
    written: dict[str, Any] = json.loads((project.folder / "runner.schema.json").read_text())
    Draft7Validator.check_schema(written)
    return written


def faults(schema: dict[str, Any], text: str) -> Iterator[str]:
    for error in Draft7Validator(schema).iter_errors(tomli.loads(text)):
        yield f"{'.'.join(map(str, error.absolute_path))}: {error.message}"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_every_shipped_manifest_is_accepted(schema: dict[str, Any], path: Path) -> None:
    assert list(faults(schema, path.read_text())) == []


def test_what_runner_takes_is_accepted(schema: dict[str, Any]) -> None:
    """Sizes, times, a stage that leaves the CPU by its own budget, and all that an input can be renamed to."""
    text = (
        GOOD.replace("[[stage]]", 'ram = " 1.5 GiB"\n[[stage]]', 1)
        .replace(
            "[stage.with]",
            'placement = "model-offload"\ntimeout = "2h"\n[stage.budget]\ndevice = "cuda"\n[stage.with]',
        )
        .replace(
            "[batch]",
            '[stage.from]\nnumbers = "make.extra"\ncaption = "caption"\n[batch]\nseeds = [18446744073709551615]',
        )
        + '[[item]]\nid = "..a"\nsteps = 3\nheight = 64\n[model]\nsource = "../models/x"\n'
    )
    days = text.replace('"2h"', '"1d"')
    for good in (days, toy_plugin.MANIFEST, toy_plugin.BEHAVING.format("well"), GOOD, text):
        assert list(faults(schema, good)) == []


@pytest.mark.parametrize("case", sorted(set(TABLES) - NO_TOML))
def test_a_broken_manifest_is_refused_where_a_schema_can(schema: dict[str, Any], case: str) -> None:
    old, new, _place, _words = TABLES[case]
    assert bool(list(faults(schema, GOOD.replace(old, new, 1)))) == (case not in BEYOND_A_SCHEMA)


def test_uses_decides_what_with_may_hold(schema: dict[str, Any]) -> None:
    found = list(faults(schema, GOOD.replace("[batch]", "[stage.with]\nsteps = 2\n[batch]")))
    assert found == ["stage.1.with: Additional properties are not allowed ('steps' was unexpected)"]


def test_a_stage_that_its_model_tells_the_parameters_of_leaves_items_open(schema: dict[str, Any]) -> None:
    odd = GOOD + '[[item]]\nid = "a"\nnum_frames = 9\n'
    assert list(faults(schema, odd)) == [
        "item.0: Additional properties are not allowed ('num_frames' was unexpected)"
    ]
    assert not list(faults(schema, odd.replace("toy.write", "diffusers.denoise")))


def test_adapters_and_items_weights_of_them(schema: dict[str, Any]) -> None:
    for path, files in (
        ("./a.safetensors", True),
        ("lab/loras@v1:b/c.safetensors", True),
        ("lab/loras", False),
    ):
        text = GOOD + f'[[lora]]\nsource = "{path}"\nweight = -0.5\n[[item]]\nlora_weights = {{ a = 0.5 }}\n'
        assert (list(faults(schema, text)) == []) is files, path
    found = {*faults(schema, GOOD + '[[item]]\nlora_weights = { a = "0.5" }\n')}
    assert found == {"item.0.lora_weights.a: '0.5' is not of type 'number'"}


def test_it_is_stamped_with_the_versions_that_it_is_made_from(schema: dict[str, Any]) -> None:
    assert schema["x-runner"] == {
        "stage-runner": metadata.version("stage-runner"),
        "runner-diffusers": metadata.version("runner-diffusers"),
        "runner-flux": metadata.version("runner-flux"),
        "toy-plugin": "1.0",
    }


def test_parameters_that_no_schema_can_tell_stop_no_other(toy: Project) -> None:
    source = toy_plugin.TOY.replace("from pydantic", "from collections.abc import Callable\nfrom pydantic")
    toy.plugin("toy", source.replace('ending: str = "."', "ending: Callable[[], str]"))
    outcome = toy.runner("schema", "--json")
    assert outcome.code == 0, outcome
    made = json.loads(outcome.stdout)
    assert "additionalProperties" not in made["$defs"]["toy.write"]
    assert (
        list(faults(made, toy_plugin.MANIFEST.replace("[batch]", "[stage.with]\nending = 1\n[batch]"))) == []
    )
    assert list(faults(made, toy_plugin.MANIFEST.replace('prompts = ["one", "two"]', "prompts = [1]")))


def test_a_file_that_is_there_is_not_overwritten(toy: Project) -> None:
    outcome = toy.invoke("schema", "-o", "toy.toml")
    assert outcome.code == 2, outcome
    assert "--force overwrites it" in outcome.stderr
    forced = toy.invoke("schema", "-o", "toy.toml", "--force", "--json")
    assert json.loads(forced.stdout)["path"] == "toy.toml"
