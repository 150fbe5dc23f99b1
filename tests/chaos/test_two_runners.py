"""Two runners started at once: one runs."""

# mypy: disable-error-code="misc"

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from chaos.kills import ENDS, KILLS, adopting
from toy_plugin import BEHAVING
from waiting import wait_until

if TYPE_CHECKING:
    from project import Project

ROUNDS = 40 if KILLS else 3
WAITING_ROUNDS = 10 if KILLS else 1


def test_one_runs_and_the_other_says_so(toy: Project) -> None:
    """The one that runs is killed, in whatever it is about, and two more are started at once."""
    toy.write("toy.toml", BEHAVING.format("well"))
    # it starts the process that all tests share, which is no orphan
    assert toy.runner("run", "toy.toml", "--set", "name=first").code == 0
    toy.write("toy.toml", BEHAVING.format("wait"))
    with adopting() as orphans:
        for number in range(ROUNDS):
            pair = [toy.start("run", "toy.toml"), toy.start("run", "toy.toml")]
            wait_until(lambda pair=pair: any(one.poll() is not None for one in pair), 100, "one has ended")
            loser, winner = sorted(pair, key=lambda one: one.poll() is None)
            _, stderr = loser.communicate(timeout=ENDS)
            assert loser.returncode == 6, stderr
            assert f"process {winner.pid} on " in stderr
            assert winner.poll() is None
            if number < ROUNDS - 1:
                winner.kill()
            else:
                (toy.folder / "flags/item.go").touch()
            _, stderr = winner.communicate(timeout=ENDS)
            wait_until(lambda: not orphans.living(), ENDS, "all processes have ended")
    assert winner.returncode == 0, stderr


def test_the_other_waits_and_finds_all_done(toy: Project) -> None:
    toy.write("toy.toml", BEHAVING.format("well"))
    for number in range(WAITING_ROUNDS):
        command = ["run", "toy.toml", "--wait", "--json", "--set", f"name=toy{number}"]
        pair = [toy.start(*command), toy.start(*command)]
        reported = [one.communicate(timeout=100) for one in pair]
        assert [one.returncode for one in pair] == [0, 0], reported
        events = [json.loads(line) for stdout, _ in reported for line in stdout.splitlines()]
        made = [(event["stage"], event["item"]) for event in events if event["event"] == "item_finished"]
        assert sorted(made) == [(stage, item) for stage in ("make", "write") for item in ("first", "item")]
