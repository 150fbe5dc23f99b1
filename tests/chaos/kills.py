"""Kills, left to chance: what they end, how, and when."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psutil
from waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from random import Random

    from chaos.batch import Batch, Order

KILLS = int(os.environ.get("CHAOS_KILLS", "0"))
"""How many there are to be, at least; 0 for the few of a short form."""
SEED = os.environ.get("CHAOS_SEED", "0")

ENDS = 60.0  # seconds; for what was ended, or must end by itself, to be gone
# what a run may end with: it got through, a stage crashed, it was interrupted, it was ended
CODES = {0, 1, 7, 130, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT}
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h

AT_A_MOMENT = {
    "worker": [
        ["worker KILL"],
        ["worker KILL"],
        ["worker TERM"],
        ["server KILL"],
        ["supervisor KILL"],
        ["supervisor TERM"],
        ["supervisor INT", "worker KILL"],
        ["supervisor KILL", "server KILL", "worker KILL"],
    ],
    "supervisor": [["supervisor KILL"], ["supervisor KILL"], ["supervisor TERM"], ["supervisor INT"]],
}
"""What may be ended at a moment, by the role of the process that comes to it."""
ANYTIME = [
    ("worker", ["KILL"]),
    ("worker", ["STOP", "KILL"]),
    ("worker", ["TERM"]),
    ("server", ["KILL"]),
    ("server", ["STOP", "KILL"]),
    ("supervisor", ["KILL"]),
    ("supervisor", ["STOP", "KILL"]),
    ("supervisor", ["INT"]),
    ("supervisor", ["TERM"]),
    ("supervisor", ["INT", "INT"]),
    ("all", ["KILL"]),
]
"""What may be ended at any time, and the signals that do it."""


def draw_orders(moments: list[str], chance: Random, number: int) -> list[Order]:
    """Kills at moments that an undisturbed run came to, each kind of moment as likely as any other."""
    kinds = sorted({moment for moment in moments if moment.split()[0] in AT_A_MOMENT})
    orders: list[Order] = []
    for moment in chance.sample(kinds, min(number, len(kinds))):
        role, what, _ = moment.split()
        victims = chance.choice(AT_A_MOMENT[role])
        if what in ("half", "torn"):  # what is written half must stay so
            victims = [f"{role} KILL"]
        elif what == "unheard":
            victims = []
        orders.append((moment, 1 + chance.randrange(moments.count(moment)), victims))
    return orders


@dataclass
class Ordeal:
    """A batch that is run again and again until it is done, and disturbed on the way."""

    batch: Batch
    chance: Random
    log: list[str] = field(default_factory=list)
    kills: int = 0

    def run(self, kills: int) -> None:
        """Run to the end; ``kills`` come at any time, besides those that the batch was ordered."""
        left, fired, number = kills, 0, 0
        with adopting() as orphans:
            while True:
                number += 1
                orphans.adopted = 0
                run = _Run(self.batch, self.batch.folder / f"stderr-{number}.txt", self.chance)
                while left and run.disturb():
                    left -= 1
                code = run.end()
                wait_until(lambda: not orphans.living(), ENDS, "all processes have ended")
                ordered = self.batch.noted("fired")[fired:]
                fired += len(ordered)
                ended = [*run.log, *ordered]
                self.log += [*ended, f"exit code {code}"]
                self.kills += len(ended)
                self._check(run, code, len(ended), orphans)
                if code == 0:
                    return

    def _check(self, run: _Run, code: int, ended: int, orphans: Orphans) -> None:
        reported = run.stderr.read_text()
        assert code in CODES, reported
        assert "a bug of runner's own" not in reported, reported
        if not ended:
            assert code in (0, 1), reported
            assert orphans.adopted == 0  # a run sees off its own


class _Run:
    """One run of the batch's command."""

    def __init__(self, batch: Batch, stderr: Path, chance: Random) -> None:
        self.stderr = stderr
        self.log: list[str] = []
        self._chance = chance
        self._events = 0
        with stderr.open("w") as file:
            self._process = batch.start(*batch.command, stderr=file)
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def disturb(self) -> bool:
        """Wait for a random number of events, and end something; False if the run ended before."""
        until = self._events + self._chance.choice([0, self._chance.randrange(1, 60)])
        wait_until(lambda: self._events >= until or self._process.poll() is not None, 200, f"{until} events")
        time.sleep(self._chance.random() * 0.1)  # a moment between two events is meant too
        who, signals = self._chance.choice(ANYTIME)
        victims = self._victims(who)
        for name in signals:
            for victim in victims:
                with contextlib.suppress(psutil.NoSuchProcess):
                    victim.send_signal(signal.Signals[f"SIG{name}"])
            if name != signals[-1]:
                time.sleep(self._chance.random() * 0.2)
        if victims:
            self.log.append(f"after {self._events} events: {who} {' '.join(signals)}")
        return self._process.poll() is None

    def end(self) -> int:
        """Wait for the end; returns the exit code."""
        code = self._process.wait(200)
        self._thread.join(ENDS)
        return code

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for _ in lines:
                self._events += 1

    def _victims(self, who: str) -> list[psutil.Process]:
        try:
            supervisor = psutil.Process(self._process.pid)
            if self._process.poll() is not None:
                return []
            servers = supervisor.children()
            workers = [worker for server in servers for worker in server.children()]
        except psutil.NoSuchProcess:
            return []
        return {
            "supervisor": [supervisor],
            "server": servers,
            "worker": workers,
            "all": [supervisor, *servers, *workers],
        }[who]


class Orphans:
    """Processes that lost their parent and became ours."""

    def __init__(self) -> None:
        self._before = set(psutil.Process().children())
        self.adopted = 0

    def living(self) -> list[psutil.Process]:
        """Those that still run; those that have ended are seen off, as init would."""
        living = []
        for child in set(psutil.Process().children()) - self._before:
            if child.status() != psutil.STATUS_ZOMBIE:
                living.append(child)
            else:
                os.waitpid(child.pid, 0)
                self.adopted += 1
        return living


@contextlib.contextmanager
def adopting() -> Iterator[Orphans]:
    """Have what is orphaned become a child of this process, and not of init."""
    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield Orphans()
    finally:
        prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
