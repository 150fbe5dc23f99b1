"""Whole runs with workers by a script: what passes from stage to stage, what is cleaned up, what is refused."""

from __future__ import annotations

import os
import shutil
import signal
from collections import namedtuple
from typing import TYPE_CHECKING, Any

import pytest
from scripted import run
from scripted_chain import MANIFEST, directory

from runner.errors import ExitCode, StorageError
from runner.events import RunFinished, RunStarted
from runner.rundir.history import failed_items
from runner.rundir.journal import read_journal
from runner.supervisor.execution import RESERVE
from runner.work import ALL_STAGES

if TYPE_CHECKING:
    from project import Project


def test_stages_run_one_after_another_for_all_items(chain: Project) -> None:
    ran = run(chain, "chain.toml")
    assert ran.code == ExitCode.DONE
    assert ran.made == [(stage, item, "done") for stage in ("one", "two", "three") for item in "ab"]
    curves = [stage["memory"] for stage in ran.of("stage_finished")]
    assert all(curves)
    assert curves[1][0] != curves[0][0]  # each stage has one of its own
    (finished,) = ran.of("run_finished")
    names = [os.path.basename(path).partition("-")[0] for path in finished["outputs"]]  # noqa: PTH119
    assert (finished["exit_code"], names, "error" in finished) == (0, ["a", "b"], False)
    again = run(chain, "chain.toml")
    assert (again.code, again.of("stage_started")) == (ExitCode.DONE, [])
    assert again.of("run_finished")[0]["outputs"] == finished["outputs"]


def test_what_takes_from_a_failure_is_not_tried_however_far_behind(chain: Project) -> None:
    script = "fail('a') if job.name == 'one' else None\ndone(*[i for i in ids if job.name != 'one' or i != 'a']); finish()"
    ran = run(chain, "chain.toml", script)
    assert ran.code == ExitCode.ITEMS_FAILED
    assert [m for m in ran.made if m[1] == "a"] == [("one", "a", "failed")]
    assert [e["items"] for e in ran.of("stage_started")] == [2, 1, 1]
    assert len(ran.of("run_finished")[0]["outputs"]) == 1


def test_a_stage_for_which_nothing_is_left_is_not_started(chain: Project) -> None:
    ran = run(chain, "chain.toml", "[fail(i) for i in ids]; finish()")
    assert ran.code == ExitCode.ITEMS_FAILED
    assert [e["stage"] for e in ran.of("stage_started")] == ["one"]


def test_all_that_a_killed_worker_leaves_is_swept_at_the_end(chain: Project) -> None:
    """Half a hand-off, and what an earlier run was killed at."""
    before = directory(chain).path / "outputs/.page.txt.1.tmp"
    before.parent.mkdir(parents=True)
    before.write_bytes(b"half")
    script = f"""
assert not os.path.exists({str(before)!r})
if worker == 0:
    places["a"].handoff.parent.mkdir(parents=True)
    places["a"].handoff.with_name(".a.2.tmp").write_bytes(b"half")
    begin("a")
    os.kill(os.getpid(), 9)
done(*ids); finish()
"""
    ran = run(chain, "chain.toml", script)
    assert ran.code == ExitCode.DONE
    assert len(ran.of("worker_died")) == 1
    assert not list(directory(chain).path.rglob("*.tmp"))


def test_states_of_finished_items_go_and_those_of_others_stay(chain: Project) -> None:
    """A supervisor that is killed between an item's result and its state leaves both."""
    ran = run(chain, "chain.toml")
    key = {(e["stage"], e["item"]): e["key"] for e in ran.of("item_finished")}
    states = {name: directory(chain).state("three", key["three", name]) for name in "ab"}
    for state in states.values():
        state.parent.mkdir(parents=True, exist_ok=True)
        state.write_bytes(b"saved")
    made = next(path for path in directory(chain).outputs.glob("b-*.txt"))
    made.unlink()
    ran = run(chain, "chain.toml", "assert places['b'].state.exists(); done(*ids); finish()")
    assert ran.made == [("three", "b", "done")]
    assert not any(state.exists() for state in states.values())


def with_free(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    usage = namedtuple("usage", "total used free")  # noqa: PYI024
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1 << 50, 0, free))


def test_room_is_asked_for_beyond_what_items_leave(chain: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal, logs and states need some too."""
    needed = 2 * (1 << 20)  # two items of a MiB each
    with_free(monkeypatch, needed + RESERVE - 1)
    ran = run(chain, "chain.toml")
    assert ran.code == ExitCode.STORAGE
    assert "its 2 items leave up to 2.0 MiB" in str(ran.error)
    assert ran.of("stage_started") == []
    with_free(monkeypatch, needed + RESERVE)
    assert run(chain, "chain.toml").code == ExitCode.DONE


def test_only_what_failed_is_tried_again_where_that_is_asked_for(chain: Project) -> None:
    failing = "[fail(i) if i == 'a' else done(i) for i in ids]; finish()"
    run(chain, "chain.toml", failing)
    assert failed_items(directory(chain).journal) == {"a"}
    shutil.rmtree(directory(chain).outputs)
    ran = run(chain, "chain.toml", retry_failed=True)
    assert ran.made == [(stage, "a", "done") for stage in ("one", "two", "three")]


def test_items_of_one_key_share_what_is_made(chain: Project) -> None:
    chain.write("chain.toml", MANIFEST.replace('prompt = "b"', 'prompt = "a"'))
    ran = run(chain, "chain.toml")
    assert [e["items"] for e in ran.of("stage_started")] == [2, 2, 2]
    pages = sorted(path.name for path in directory(chain).outputs.glob("*.txt"))
    assert [name[0] for name in pages] == ["a", "b"]
    assert pages[0][1:] == pages[1][1:]
    assert all(
        path.with_name(f"{path.name}.runner.json").exists() for path in directory(chain).outputs.glob("*.txt")
    )


def test_all_stages_are_planned_before_the_first_starts(chain: Project) -> None:
    ran = run(chain, "chain.toml", sets=["stage.three.budget.ram=1MiB"])
    assert ran.code == ExitCode.BUDGET
    assert "stage 'three' does not fit" in str(ran.error)
    assert ran.of("stage_started") == []
    (finished,) = ran.of("run_finished")
    assert finished["exit_code"] == ExitCode.BUDGET
    assert "stage 'three' does not fit" in finished["error"]


def test_a_run_directory_that_was_moved_away_is_written_no_more(chain: Project) -> None:
    moved = chain.folder / "moved"

    def move(event: dict[str, Any]) -> None:
        if event["event"] == "progress":
            directory(chain).path.rename(moved)
            directory(chain).path.mkdir()

    script = f"""
begin('a'); say('progress', item='a', step=1, steps=2)
while not os.path.exists({str(moved)!r}):
    time.sleep(0.01)
done('a', 'b'); finish()
"""
    ran = run(chain, "chain.toml", script, listen=move)
    assert ran.code == ExitCode.STORAGE
    assert "was removed or moved away under the run" in str(ran.error)


def test_a_signal_between_workers_is_an_interruption_too(chain: Project) -> None:
    def interrupt(event: dict[str, Any]) -> None:
        if event["event"] == "stage_finished":
            os.kill(os.getpid(), signal.SIGINT)

    ran = run(chain, "chain.toml", listen=interrupt)
    assert ran.code == ExitCode.INTERRUPTED
    assert ran.of("run_finished")[0]["exit_code"] == ExitCode.INTERRUPTED
    assert [e["stage"] for e in ran.of("stage_started")] == ["one"]


def test_the_journal_ends_with_the_error(chain: Project) -> None:
    ran = run(chain, "chain.toml", "say('failed', code=9, error='the disk'); sys.exit(9)")
    assert isinstance(ran.error, StorageError)
    journal = list(read_journal(directory(chain).journal))
    last = journal[-1]
    assert isinstance(journal[0], RunStarted)
    assert isinstance(last, RunFinished)
    assert last.exit_code == ExitCode.STORAGE
    assert "the disk" in (last.error or "")


def test_a_run_leaves_the_lock_and_its_signals_as_they_were(chain: Project) -> None:
    from runner.rundir.lock import held_by

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    run(chain, "chain.toml")
    assert held_by(directory(chain).lock) is None
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


@pytest.mark.parametrize(
    ("fresh", "stages"),
    [
        ("one", ["one", "two", "three"]),
        ("two", ["two", "three"]),
        ("three", ["three"]),
        (ALL_STAGES, ["one", "two", "three"]),
    ],
)
def test_what_is_forced_is_made_again_and_all_that_follows(
    chain: Project, fresh: str, stages: list[str]
) -> None:
    run(chain, "chain.toml")
    ran = run(chain, "chain.toml", fresh=fresh)
    assert ran.code == ExitCode.DONE
    assert [(e["stage"], e["items"]) for e in ran.of("stage_started")] == [(stage, 2) for stage in stages]


def test_a_stage_that_is_not_there_cannot_be_forced(chain: Project) -> None:
    ran = run(chain, "chain.toml", fresh="thre")
    assert ran.code == ExitCode.USAGE
    assert "did you mean 'three'?" in str(ran.error)
    assert not directory(chain).path.exists()
