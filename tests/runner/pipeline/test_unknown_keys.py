"""Keys in the wrong table, and values without quotes: the message says what to write and where."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from broken_manifests import GOOD

if TYPE_CHECKING:
    from project import Project

STAGE = 'uses = "toy.make"'


@pytest.mark.parametrize(
    ("old", "new", "place", "words"),
    [
        (
            "version = 1",
            "version = 1\nsteps = 4",
            "2:1",
            "belongs in [with] or [[item]] or [stage.with] of stage 'make'",
        ),
        ("version = 1", 'version = 1\nvram = "8GiB"', "2:1", "belongs in [budget]"),
        (
            "version = 1",
            'version = 1\nprompt = "a"',
            "2:1",
            "belongs in [with] or [[item]] or [stage.with] of stage 'make'",
        ),
        (STAGE, f'{STAGE}\nvram = "8GiB"', "8:1", "belongs in [stage.budget] or [budget]"),
        (STAGE, f"{STAGE}\nsteps = 4", "8:1", "unknown key 'steps'; it belongs in [stage.with]"),
        (STAGE, f'{STAGE}\nsource = "a/b"', "8:1", "belongs in [stage.model] or [model]"),
        (
            "steps = 2",
            'dtype = "float32"',
            "9:1",
            "toy.make has no parameter 'dtype'; it belongs in [[stage]]",
        ),
        (
            "steps = 2",
            'ending = "!"',
            "9:1",
            "belongs in [with] or [[item]] or [stage.with] of stage 'write'",
        ),
        (
            "[batch]",
            "[batch]\nseed = 1",
            "14:1",
            "did you mean 'seeds'? ('seed' belongs in [with] or [[item]]",
        ),
        ("[batch]", "[batch]\ncheckpoint_every = 1", "14:1", "belongs in [run]"),
        ("[batch]", "[[item]]\nseeds = [1]\n[batch]", "14:9", "it belongs in [batch]"),
        (STAGE, f"{STAGE}\nstepz = 4", "8:1", "did you mean 'steps', which belongs in [stage.with]?"),
        ("[budget]", "[budget]\nplacement = 'auto'", "4:1", "belongs in [[stage]]"),
        # quotes that were forgotten
        ('name = "toy"', "name = toy", "2:8", 'text needs quotes: "toy"'),
        ('device = "cpu"', "device = cpu # of this machine", "4:10", 'text needs quotes: "cpu"'),
        ('device = "cpu"', "ram = 30 GiB", "4:7", 'text needs quotes: "30 GiB"'),
        (STAGE, "uses = toy.make", "7:8", 'text needs quotes: "toy.make"'),
        ('prompts = ["one"]', "prompts = [one, a red fox]", "14:12", 'text needs quotes: "one"'),
        ('prompts = ["one"]', "file = C:\\prompts.csv", "14:8", "text needs quotes: 'C:\\prompts.csv'"),
        ("steps = 2", "steps = True", "9:9", "true and false are lower case: true"),
        ("steps = 2", "steps = None", "9:9", "TOML has no None: leave the key out"),
    ],
)
def test_the_message_says_where_a_key_belongs_and_what_lacks_quotes(
    toy: Project, old: str, new: str, place: str, words: str
) -> None:
    toy.write("toy.toml", GOOD.replace(old, new, 1))
    outcome = toy.invoke("validate", "toy.toml")
    assert outcome.code == 3, outcome
    assert f"toy.toml:{place}: " in outcome.stderr, outcome
    assert words in outcome.stderr, outcome


def test_several_values_without_quotes_are_reported_at_once(toy: Project) -> None:
    text = GOOD.replace('"toy"', "toy").replace('"make"', "make").replace("steps = 2", "stesp = 2")
    toy.write("toy.toml", text.replace('["one"]', "[one, two three]"))
    outcome = toy.invoke("validate", "toy.toml")
    for place in ("2:8", "6:8", "9:1", "14:12", "14:"):
        assert f"toy.toml:{place}" in outcome.stderr, outcome
    assert 'text needs quotes: "two three"' in outcome.stderr


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("steps=4", "unknown key 'steps'; it is set as with.steps or stage.make.with.steps"),
        ("batch.vram=8GiB", "unknown key 'vram'; it is set as budget.vram"),
        (
            "stage.write.with.steps=4",
            "toy.write has no parameter 'steps'; it is set as with.steps or stage.make.with.steps",
        ),
    ],
)
def test_the_message_says_how_a_value_is_set_on_the_command_line(
    toy: Project, override: str, words: str
) -> None:
    toy.write("toy.toml", GOOD)
    outcome = toy.invoke("validate", "toy.toml", "--set", override)
    assert outcome.code == 2, outcome
    assert f"--set {override}: {words}" in outcome.stderr
