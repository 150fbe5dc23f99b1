"""Tasks as messages: an agent takes only what it would make itself, and paths of nobody."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from scripted import first_stage
from toy_plugin import STAGES

from runner.errors import PluginError, UsageError
from runner.remote.messages import Earlier, TaskMessage
from runner.remote.tasks import SAMPLES, InputFiles, sampled, samples, taken, task_message
from runner.work.demand import demand
from runner.work.keys import Prints, key_of

if TYPE_CHECKING:
    from project import Project
    from scripted import Stage

FOLDER = Path("/nowhere")


@pytest.fixture
def stage(toy: Project) -> Stage:
    toy.write("toy.toml", STAGES + '[batch]\nprompts = ["one", "two"]\n')
    return first_stage(toy, "toy.toml")


def message_of(stage: Stage, n: int) -> TaskMessage:
    """The message of the first task of a stage, by index."""
    task = demand(stage.work).tasks[n][0]
    return task_message(stage.work, stage.work.pipeline.stages[n], task, InputFiles())


def take(stage: Stage, message: TaskMessage, n: int = 0) -> Any:
    pipeline = stage.work.pipeline
    return taken(message, pipeline, pipeline.stages[n], Prints(), FOLDER)


@pytest.mark.parametrize("n", [0, 1])
def test_a_task_arrives_as_it_was(stage: Stage, n: int) -> None:
    task = demand(stage.work).tasks[n][0]
    found = take(stage, message_of(stage, n), n)
    assert found.task.item.id == task.item.id
    assert found.task.keyed == task.keyed
    assert found.task.item.params[n] == task.item.params[n]
    keys = stage.work.keys[task.item.id]
    assert [one.key for one in found.keys][: n + 1] == [one.key for one in keys][: n + 1]


def changed(message: TaskMessage, **inputs: Any) -> TaskMessage:
    """The message with other inputs of its key, which is their hash."""
    made_from = {**message.key_inputs, **inputs}
    return replace(message, key_inputs=made_from, key=key_of(made_from))


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"version": 2}, "another version"),
        ({"model": "other"}, "another model"),
        ({"stage": "toy.write"}, "another stage"),
        ({"dtype": "float16"}, "another dtype"),
        ({"inputs": {"x": "y"}}, "another inputs"),
        ({"quantize": "int8"}, "another quantize"),
        ({"dtypes": {"vae": "float16"}}, "another dtypes"),
        ({"lora": {"style": {"place": 0, "file": "0", "weight": 1.0}}}, "another lora"),
        ({"lora": [7]}, "another lora"),
        ({"params": None}, "not the hash of what it says"),
    ],
)
def test_what_this_agent_would_make_otherwise_is_refused(
    stage: Stage, inputs: dict[str, Any], words: str
) -> None:
    with pytest.raises(PluginError, match=words):
        take(stage, changed(message_of(stage, 0), **inputs))


def test_a_key_that_is_no_hash_of_its_inputs_is_refused(stage: Stage) -> None:
    with pytest.raises(PluginError, match="not the hash"):
        take(stage, replace(message_of(stage, 0), key="0" * 64))


@pytest.mark.parametrize("item", ["../x", "a/b", ".", "", "x" * 101, "a\n"])
def test_an_item_that_would_be_a_path_is_refused(stage: Stage, item: str) -> None:
    with pytest.raises(PluginError, match="is no name of an item"):
        take(stage, replace(message_of(stage, 0), item=item))


@pytest.mark.parametrize("key", ["../../x", "0" * 63, "G" * 64])
def test_the_key_of_an_input_that_would_be_a_path_is_refused(stage: Stage, key: str) -> None:
    message = message_of(stage, 1)
    inputs = {name: f"{key}.{name}" for name in message.key_inputs["inputs"]}
    with pytest.raises(PluginError, match="another inputs"):
        take(stage, replace(changed(message, inputs=inputs), earlier=[Earlier(0, key, {})]), 1)


def test_agents_plan_for_each_size_once_and_the_largest(toy: Project) -> None:
    many = "".join(
        f'[[item]]\nid = "i{n}"\nprompt = "p{n}"\nsteps = {n % (SAMPLES + 5) + 1}\n' for n in range(600)
    )
    toy.write("toy.toml", STAGES + many)
    pipeline = first_stage(toy, "toy.toml").work.pipeline
    found = samples(pipeline, InputFiles())
    assert len(found) == SAMPLES
    steps = [sample.stages[0].values["steps"] for sample in found]
    assert (steps[0], len({*steps})) == (SAMPLES + 5, SAMPLES)
    planned = sampled(pipeline, found, FOLDER)
    assert planned[0].params[0].raw.values["steps"] == SAMPLES + 5


def test_a_folder_among_the_parameters_is_reported_of(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="folders are not sent to other machines"):
        InputFiles()._add(tmp_path, "images")


def test_files_of_one_name_are_reported_apart(tmp_path: Path) -> None:
    inputs = InputFiles()
    names = {inputs._add(tmp_path / folder / "a b.png", "image") for folder in "xy"}
    assert len(names) == 2
    assert all(name.endswith("-a_b.png") for name in names)
