"""Values of ``--set`` without effect are reported, and values that no item uses are checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from toy_plugin import STAGES

if TYPE_CHECKING:
    from project import Project

ITEMS = """
[[item]]
prompt = "one"
steps = 3
[[item]]
prompt = "two"
"""
OF_ITS_OWN = STAGES.replace('uses = "toy.make"', 'uses = "toy.make"\nbudget = { ram = "1GiB" }')


def warnings(project: Project, text: str, *overrides: str, prompt: str = "") -> list[str]:
    project.write("toy.toml", text)
    sets = [word for override in overrides for word in ("--set", override)]
    prompts = ["--prompt", prompt] if prompt else []
    outcome = project.invoke("plan", "toy.toml", *sets, *prompts)
    assert outcome.code == 0, outcome
    return [line for line in outcome.stderr.splitlines() if line.startswith("warning: ")]


@pytest.mark.parametrize(
    ("text", "override", "expected"),
    [
        (
            STAGES + ITEMS.replace('"two"', '"two"\nsteps = 4'),
            "stage.make.with.steps=9",
            "changes nothing: every item has 'steps' of its own",
        ),
        (
            STAGES + ITEMS,
            "stage.make.with.steps=9",
            "changes 1 of 2 items: the others have 'steps' of their own",
        ),
        (STAGES + ITEMS, "stage.make.with.seed=9", ""),
        (
            STAGES + ITEMS + "[batch]\nseeds = [1, 2]\n",
            "stage.make.with.seed=9",
            "changes nothing: every item has 'seed' of its own",
        ),
        (OF_ITS_OWN + ITEMS, "budget.ram=2GiB", "changes 1 of 2 stages: the others have 'ram' of their own"),
        (OF_ITS_OWN + ITEMS, "budget.threads=2", ""),
        (
            STAGES.replace('"toy.write"', '"toy.write"\nbudget = { ram = "1GiB" }').replace(
                'uses = "toy.make"', 'uses = "toy.make"\nbudget = { ram = "1GiB" }'
            )
            + ITEMS,
            "budget.ram=2GiB",
            "changes nothing: every stage has 'ram' of its own",
        ),
    ],
)
def test_an_override_without_effect_is_reported(
    toy: Project, text: str, override: str, expected: str
) -> None:
    expected_lines = [f"warning: --set {override} {expected}"] if expected else []
    assert warnings(toy, text, override) == expected_lines


def test_overrides_that_others_replace_are_reported(toy: Project) -> None:
    both = ("stage.make.with.seed=1", "stage.make.with.seed=2")
    expected = (
        "warning: --set stage.make.with.seed=1 changes nothing: --set stage.make.with.seed=2 comes after it"
    )
    assert warnings(toy, STAGES + ITEMS, *both) == [expected]
    expected = "warning: --set batch.prompts=['x'] changes nothing: --prompt takes the place of the batch"
    assert warnings(toy, STAGES + ITEMS, "batch.prompts=['x']", prompt="fox") == [expected]


@pytest.mark.parametrize("value", ["0", "'many'", "1.5"])
def test_a_value_that_every_item_replaces_is_checked(toy: Project, value: str) -> None:
    text = STAGES.replace('uses = "toy.make"', f'uses = "toy.make"\nwith = {{ steps = {value} }}')
    toy.write("toy.toml", text + "[[item]]\nprompt = 'x'\nsteps = 3\n")
    outcome = toy.invoke("validate", "toy.toml")
    assert outcome.code == 3, outcome
    assert "toy.toml:9:18: 'steps'" in outcome.stderr


def test_rules_about_several_parameters_are_not_held_against_a_part_of_them(toy: Project) -> None:
    """An item may set what ``with`` needs beside it."""
    toy.plugin(
        "pair",
        """
        from pydantic import BaseModel, ConfigDict, model_validator
        from runner.api import Stage, Text, hookimpl
        RUNNER_API = 1

        class Pair(BaseModel):
            model_config = ConfigDict(extra="forbid")
            scale: float = 1.0
            negative: str = ""

            @model_validator(mode="after")
            def together(self):
                if self.scale > 1 and not self.negative:
                    raise ValueError("a scale over 1 needs a negative")
                return self

        @hookimpl
        def runner_stages():
            return [Stage("pair.say", "pair:start", params="pair:Pair", outputs=(Text("said"),))]
        """,
    )
    text = """
        version = 1
        name = "pair"
        [[stage]]
        name = "say"
        uses = "pair.say"
        [stage.with]
        scale = 2.0
        [[item]]
        id = "a"
        """
    toy.write("pair.toml", text + 'negative = "rain"\n')
    assert toy.invoke("validate", "pair.toml").code == 0
    toy.write("pair.toml", text)
    assert "a scale over 1 needs a negative" in toy.invoke("validate", "pair.toml").stderr
