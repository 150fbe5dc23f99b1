"""What a node is sent with its tasks: the files that they need, before them and once; messages of bounded size."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from PIL import Image
from plugins.test_guide import FILES
from scripted import first_stage
from toy_plugin import STAGES

from runner.remote.giving import give
from runner.remote.messages import Give, Message, Piece
from runner.work.demand import demand

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from project import Project
    from scripted import Stage


class Outbox:
    """What was put into it, in order: names of files, and messages."""

    def __init__(self) -> None:
        self.found: list[Any] = []

    def put(self, message: Message) -> None:
        self.found.append(message)

    def put_file(self, piece: Piece, path: Path) -> None:
        self.found.append(piece.name)


def node() -> Any:
    return SimpleNamespace(outbox=Outbox(), held=set(), shared=False)


def given(to: Any, stage: Stage) -> list[tuple[Any, str]]:
    """Give a node all tasks of the first stage; those that cannot be sent."""
    tasks = demand(stage.work).tasks[0]
    work: Any = SimpleNamespace(work=stage.work, stage=stage.work.pipeline.stages[0])
    return give(to, work, tasks)


def test_files_that_a_task_names_are_sent_once_and_before_it(project: Project) -> None:
    project.plugin("convert", FILES["convert.py"])
    project.write("convert.toml", FILES["convert.toml"])
    for name in ("fox", "owl"):
        Image.new("RGB", (8, 8), "red").save(project.folder / f"{name}.png")
    stage, to = first_stage(project, "convert.toml"), node()
    assert given(to, stage) == []
    *files, message = to.outbox.found
    assert [name.partition("-")[2] for name in files] == ["fox.png", "owl.png"]
    assert isinstance(message, Give)
    assert [
        task.given.files[name] for task, name in zip(message.tasks, ("fox.png", "owl.png"), strict=True)
    ] == files
    to.outbox.found.clear()
    given(to, stage)
    assert [type(one) for one in to.outbox.found] == [Give]


def test_a_task_whose_file_is_gone_fails_and_the_others_are_sent(project: Project) -> None:
    project.plugin("convert", FILES["convert.py"])
    project.write("convert.toml", FILES["convert.toml"])
    for name in ("fox", "owl"):
        Image.new("RGB", (8, 8), "red").save(project.folder / f"{name}.png")
    stage, to = first_stage(project, "convert.toml"), node()
    demand(stage.work)
    (project.folder / "fox.png").unlink()
    ((task, error),) = given(to, stage)
    assert task.item.params[0].raw.values["picture"] == "fox.png"
    assert error == f"it cannot be sent to a node: there is no file {project.folder / 'fox.png'} any more"
    file, message = to.outbox.found
    assert file.endswith("owl.png")
    assert len(message.tasks) == 1


def test_many_tasks_are_sent_in_messages_of_bounded_size(
    toy: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy.write("toy.toml", STAGES + '[batch]\nprompts = ["one", "two", "three", "four"]\n')
    stage, to = first_stage(toy, "toy.toml"), node()
    given(to, stage)
    (whole,) = to.outbox.found
    assert len(whole.tasks) == 4
    room = len(Give(whole.tasks[:2]).frame()) + 100  # for two, which have a frame each when they are counted
    monkeypatch.setattr("runner.remote.giving.LARGE", room)
    parts = node()
    given(parts, stage)
    assert [len(one.tasks) for one in parts.outbox.found] == [2, 2]
    assert [task for one in parts.outbox.found for task in one.tasks] == whole.tasks


def test_a_task_that_no_message_holds_fails_and_the_others_are_sent(toy: Project) -> None:
    toy.write("toy.toml", f'{STAGES}[batch]\nprompts = ["one", "{"x" * (9 << 20)}"]\n')
    stage, to = first_stage(toy, "toy.toml"), node()
    ((task, error),) = given(to, stage)
    assert len(task.item.params[0].raw.values["prompt"]) == 9 << 20
    assert "cannot be sent to a node: it is larger than 8 MiB" in error
    (message,) = to.outbox.found
    assert [one.given.values["prompt"] for one in message.tasks] == ["one"]
