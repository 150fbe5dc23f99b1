"""What lies in a run directory is damaged between two runs: it is seen, and made again."""

from __future__ import annotations

import os
from random import Random
from typing import TYPE_CHECKING

import pytest
from chaos.batch import made
from chaos.kills import KILLS, SEED
from chaos.pausing import SABOTAGE

from runner.events import Waiting
from runner.files import handoff
from runner.rundir.history import read_runs
from runner.rundir.journal import Journal, read_journal

if TYPE_CHECKING:
    from project import Project

RUN = ["run", "toy.toml"]


@pytest.fixture
def done(eight: Project) -> Project:
    """A run that has ended, as ``runs/toy``."""
    (eight.folder / "undisturbed").rename(eight.folder / "runs")
    return eight


def spoiled(data: bytes, chance: Random, places: int) -> list[bytes]:
    """With a bit flipped, and cut off, at the ends and at so many places more."""
    at = {0, 8, len(data) - 1, *(chance.randrange(len(data)) for _ in range(places))}
    flipped = [data[:n] + bytes([data[n] ^ 1 << chance.randrange(8)]) + data[n + 1 :] for n in sorted(at)]
    return [*flipped, *(data[:n] for n in sorted(at))]


def test_a_flipped_or_cut_byte_in_every_handoff(done: Project) -> None:
    run, chance = done.folder / "runs/toy", Random(SEED)
    before = made(run)
    handoffs = sorted((run / "handoff").rglob("*.safetensors"))
    assert len(handoffs) == 8
    for path in handoffs:
        whole = path.read_bytes()
        for data in spoiled(whole, chance, 1000 if KILLS else 50):
            path.write_bytes(data)
            with pytest.raises(handoff.DamagedError):
                handoff.read(path, path.stem)
        path.write_bytes(chance.choice(spoiled(whole, chance, 1)))
    for path in (run / "outputs").iterdir():
        path.unlink()
    outcome = done.runner(*RUN, "--json")
    assert outcome.code == 0, outcome
    assert [event["items"] for event in outcome.of("stage_started")] == [8, 8]
    assert made(run) == before


def test_a_torn_journal(done: Project) -> None:
    run, chance = done.folder / "runs/toy", Random(SEED)
    path = run / "journal.jsonl"
    whole = path.read_bytes()
    events = list(read_journal(path))
    for cut in range(0, len(whole), 1 if KILLS else 37):
        path.write_bytes(whole[:cut])
        kept = list(read_journal(path))
        # a line may be whole but for its end
        assert kept == events[: len(kept)]
        assert len(kept) - whole[:cut].count(b"\n") in (0, 1)
        journal = Journal(path)
        journal(Waiting(reason="more"))
        journal.close()
        assert list(read_journal(path)) == [*kept, Waiting(reason="more")]
        assert len(list(read_runs(path))) <= 1
    path.write_bytes(whole[: len(whole) // 2] + chance.randbytes(5000))
    before = made(run)
    outcome = done.runner(*RUN, "--json")
    assert (outcome.code, outcome.of("stage_started")) == (0, []), outcome
    assert made(run) == before
    shown = done.runner("runs", "show", "toy", "--json")
    assert shown.code == 0, shown


def test_a_clock_that_stands_still_and_jumps(eight: Project) -> None:
    """In which logs have one name, and what is made later is older."""
    run = eight.folder / "runs/toy"
    eight.environment["PYTHONPATH"] = f"{SABOTAGE}{os.pathsep}{eight.environment['PYTHONPATH']}"
    eight.environment["SABOTAGE_CLOCK"] = "0"
    outcome = eight.runner(*RUN)
    assert outcome.code == 0, outcome
    chance = Random(SEED)
    for path in sorted(run.rglob("*")):
        os.utime(path, (0, chance.randrange(2**32)))
    for path in sorted((run / "outputs").iterdir())[::3]:
        path.unlink()
    eight.environment["SABOTAGE_CLOCK"] = "1e6"
    outcome = eight.runner(*RUN, "--json")
    assert outcome.code == 0, outcome
    assert [event["stage"] for event in outcome.of("stage_started")] == ["write"]
    assert made(run) == made(eight.folder / "undisturbed/toy")
    again = eight.runner(*RUN, "--json")
    assert (again.code, again.of("stage_started")) == (0, []), again
