"""Tasks that come while their stage runs: one worker takes them, and nobody waits for who waits for him."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from scripted import first_stage
from toy_plugin import STAGES

from runner.supervisor.feed import TaskFeed
from runner.supervisor.processes.launch import Launchers

if TYPE_CHECKING:
    from project import Project
    from scripted import Stage

    from runner.work.demand import Task

ITEMS = "".join(f'[[item]]\nid = "{name}"\nprompt = "{name}"\n' for name in "abcd")
OBEDIENT = """
last = not job.is_open
done(*ids)
while not last:
    more, last = want()
    done(*more)
finish()
"""


@pytest.fixture
def stage(toy: Project) -> Stage:
    """A stage of four items, ``a`` to ``d``."""
    toy.write("toy.toml", STAGES + ITEMS)
    return first_stage(toy, "toy.toml")


def one_by_one(stage: Stage) -> TaskFeed:
    """A feed that is given each task when the one before has ended, as by somebody who waits for that."""
    feed, left = TaskFeed(), iter(stage.tasks)

    def give(_ended: Task | None = None) -> None:
        task = next(left, None)
        feed.put([task]) if task else feed.close()

    give()
    stage.settling = give
    return feed


def ended(stage: Stage) -> str:
    return "".join(name for name, _ in stage.ended())


def test_one_worker_takes_what_comes(stage: Stage) -> None:
    attempts = stage.attempts(OBEDIENT, feed=one_by_one(stage))
    attempts.run((), 0)
    assert stage.settled == [(name, True) for name in "abcd"]
    assert attempts.launchers.jobs == 1  # type: ignore[attr-defined]


def test_a_worker_that_is_busy_is_given_what_comes_at_once(stage: Stage) -> None:
    """It need not be idle: what is there when a group ends can be part of the next one."""
    feed = TaskFeed()
    feed.put(stage.tasks[:1])
    script = "more, last = given()\ndone(*ids, *more)\nfinish()"

    def give_the_rest() -> None:
        feed.put(stage.tasks[1:])
        feed.close()

    threading.Timer(0.3, give_the_rest).start()
    stage.attempts(script, feed=feed).run((), 0)
    assert ended(stage) == "abcd"


def test_what_comes_when_no_worker_is_there_starts_one(stage: Stage) -> None:
    feed = TaskFeed()
    attempts = stage.attempts(OBEDIENT, feed=feed)
    running = threading.Thread(target=attempts.run, args=((), 0))
    running.start()
    feed.put(stage.tasks)
    feed.close()
    running.join(20)
    assert not running.is_alive()
    assert ended(stage) == "abcd"


def test_an_item_that_kills_its_worker_is_not_waited_for_by_a_worker_that_waits_for_more(
    stage: Stage,
) -> None:
    """Who feeds them waits for its end; it waits for the end of the worker, which waits to be fed."""
    deadly = "last = not job.is_open\nwhile True:\n    for name in ids:\n        begin(name)\n        if name == 'b': os._exit(3)\n        done(name)\n    if last: break\n    ids, last = want()\nfinish()"
    feed, ended_ = TaskFeed(), []
    feed.put(stage.tasks)

    def close_at_the_end(task: Task) -> None:
        ended_.append(task)
        if len(ended_) == 4:
            feed.close()

    stage.settling = close_at_the_end
    stage.attempts(deadly, feed=feed).run((), 0)
    assert dict(stage.ended()) == {"a": "done", "b": "failed", "c": "done", "d": "done"}
    assert len(stage.of("worker_died")) == 2


def test_a_feed_with_one_deadly_item_alone_is_no_failed_stage(stage: Stage) -> None:
    """It fails alone: who feeds them may have other items yet."""
    feed = TaskFeed()
    feed.put(stage.tasks[:1])
    stage.settling = lambda _task: feed.close()
    stage.attempts("begin(*ids); os._exit(3)", feed=feed).run((), 0)
    assert stage.ended() == [("a", "failed")]


def test_what_nobody_has_taken_can_be_withdrawn(stage: Stage) -> None:
    feed = TaskFeed()
    feed.put(stage.tasks)
    assert [task.item.id for task in feed.withdraw({"b", "d"})] == ["b", "d"]
    assert [task.item.id for task in feed.take()] == ["a", "c"]
    assert feed.withdraw({"a"}) == []
    feed.put(stage.tasks[:1])
    feed.close()
    assert not feed.ended
    feed.take()
    assert feed.ended


def test_a_real_worker_loads_once(toy: Project) -> None:
    items = '[[item]]\nid = "bad"\nprompt = "x"\nbehave = "raise"\n'
    toy.write("toy.toml", STAGES + items + ITEMS)
    stage = first_stage(toy, "toy.toml", ["stage.make.retries=1"])
    with toy.as_environment(), Launchers(stage.work.pipeline, stage.directory, ()) as launchers:
        stage.attempts("", feed=one_by_one(stage), launchers=launchers).run((), 0)
    assert stage.ended() == [("bad", "failed"), *((name, "done") for name in "abcd")]
    assert len(stage.of("stage_ready")) == 1
    assert len(stage.of("retrying")) == 1
