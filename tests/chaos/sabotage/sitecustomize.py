"""Ends processes of a run at chosen moments. Every interpreter that has this folder on its path imports it.

``SABOTAGE`` names a folder. In it, ``orders.json`` lists what to end and when: ``[moment, count, victims]``, at
the ``count``-th time that any process comes to the moment. A moment is ``"<role> <what> <of what>"``: the roles
are supervisor, server and worker; what may be

    half, unsynced       of a file that is written aside: half of its bytes are written, all are
    unnamed, named       it is on the disk, it has its name
    unlinked, linked     around a second name for a file
    kept, removed        around the removal of a file
    unreported, torn, reported   around a line of the journal, or an event that a worker sends, and in its middle
    unheard              the supervisor is gone, and the worker that sends it an event not yet: nobody need be ended

``fired`` there is a log of the orders that were carried out, ``trace`` of the events that workers sent, ``moments``
of all that could have been chosen.

``SABOTAGE_CLOCK`` has the clock of the day jump about by so many seconds each time that it is looked at; at 0
it stands still.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import random
import re
import signal
import stat
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_fsync, _link, _replace, _unlink, _write = os.fsync, os.link, os.replace, os.unlink, os.write
_IN_A_RUN = re.compile(
    r".*/runs/[^/]+/(?:((?:handoff|state)/[^/]+|outputs|logs)/)?\.?([^/]*?)(?:\.[\w-]+\.\d+\.tmp)?"
)
_EVENT = re.compile(rb'{"event": "(\w+)"')


class Saboteur:
    """What one process, and those forked from it, know of the orders."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self.role = "server" if "runner.worker.forkserver" in sys.orig_argv else "supervisor"
        self._orders: list[tuple[str, int, list[str]]] = []
        with contextlib.suppress(OSError):
            self._orders = json.loads(Path(folder, "orders.json").read_text())

    def forked(self) -> None:
        if self.role == "server":
            self.role = "worker"

    def at(self, what: str, of: str | None, spoil: Callable[[], Any] | None = None) -> None:
        """Come to a moment; ``spoil`` is done there, before who comes to it ends."""
        if of is None:
            return
        moment = f"{self.role} {what} {of}"
        self.note("moments", moment)
        for number, (chosen, count, victims) in enumerate(self._orders):
            # a byte for each time: appending tells every process how many there were
            if chosen == moment and self.note(f"count{number}", "") == count:
                self._carry_out(moment, victims, spoil)

    def note(self, name: str, line: str) -> int:
        """Add a line; returns the size of the file."""
        file = os.open(f"{self._folder}/{name}", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        _write(file, f"{line}\n".encode())
        size = os.fstat(file).st_size
        os.close(file)
        return size

    def trace(self, event: Any) -> None:
        """Note an event that this worker tells."""
        stage = Path("/proc/self/fd/1").readlink().stem.rpartition("-")[2]
        self.note("trace", json.dumps({"pid": os.getpid(), "stage": stage, **json.loads(bytes(event))}))

    def _carry_out(self, moment: str, victims: list[str], spoil: Callable[[], Any] | None) -> None:
        self.note("fired", f"{moment}: {', '.join(victims)}")
        chain = {self.role: os.getpid()}
        if self.role == "worker":
            chain["server"] = os.getppid()
            server = Path(f"/proc/{chain['server']}/stat").read_text()
            chain["supervisor"] = int(server.rpartition(")")[2].split()[1])
        for victim in victims:
            role, _, name = victim.partition(" ")
            if role != self.role and _is_of_a_run(chain[role]):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(chain[role], signal.Signals[f"SIG{name}"])
        if spoil is not None:
            spoil()
        for victim in victims:
            role, _, name = victim.partition(" ")
            if role == self.role:
                os.kill(os.getpid(), signal.Signals[f"SIG{name}"])


def _is_of_a_run(process: int) -> bool:
    """Whether it is one of the processes that are to be ended: who lost its parent has another."""
    try:
        return b"\0-m\0runner" in Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return False


def kind(path: Any) -> str | None:
    """What a file of a run directory is, by its path or descriptor."""
    if isinstance(path, int):
        if not stat.S_ISREG(os.fstat(path).st_mode):
            return None
        path = Path(f"/proc/self/fd/{path}").readlink()
    match = _IN_A_RUN.fullmatch(str(Path(path).absolute()))
    return (match[1] or match[2]) if match else None


def sabotage(saboteur: Saboteur) -> None:
    """Have the calls that change files come to their moments."""
    os.register_at_fork(after_in_child=saboteur.forked)

    def fsync(file: int) -> None:
        of = kind(file)
        saboteur.at("half", of, lambda: os.truncate(file, os.fstat(file).st_size // 2))
        saboteur.at("unsynced", of)
        _fsync(file)

    def replace(source: Any, target: Any, **more: Any) -> None:
        of = kind(target)
        saboteur.at("unnamed", of)
        _replace(source, target, **more)
        saboteur.at("named", of)

    def link(source: Any, target: Any, **more: Any) -> None:
        of = kind(target)
        saboteur.at("unlinked", of)
        _link(source, target, **more)
        saboteur.at("linked", of)

    def unlink(path: Any, **more: Any) -> None:
        of = kind(path) if os.path.lexists(path) else None
        saboteur.at("kept", of)
        _unlink(path, **more)
        saboteur.at("removed", of)

    def write(file: int, data: Any) -> int:
        event = _EVENT.match(data) if saboteur.role == "worker" else None
        of = event[1].decode() if event else kind(file)
        if of == "progress":  # it was done, whoever hears of it
            saboteur.trace(data)
        saboteur.at("unreported", of)
        saboteur.at("torn", of, lambda: _write(file, data[: len(data) // 2]))
        if event:
            saboteur.at("unheard", of, lambda: _break(file))
        written = _write(file, data)
        if event and of != "progress":
            saboteur.trace(data)
        saboteur.at("reported", of)
        return written

    os.fsync, os.link, os.replace, os.unlink, os.write = fsync, link, replace, unlink, write  # type: ignore[assignment]


def _break(pipe: int) -> None:
    """Have nobody read from the pipe."""
    read, write = os.pipe()
    os.close(read)
    os.dup2(write, pipe)


def jump_about(seconds: float) -> None:
    """Have the clock jump by up to so many seconds."""
    start = time.time()

    class Jumping(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> Jumping:
            return cls.fromtimestamp(time.time(), tz)

    time.time = lambda: start + seconds * random.uniform(-1, 1)
    dt.datetime = Jumping  # type: ignore[misc]


if "SABOTAGE" in os.environ:
    sabotage(Saboteur(os.environ["SABOTAGE"]))
if "SABOTAGE_CLOCK" in os.environ:
    jump_about(float(os.environ["SABOTAGE_CLOCK"]))
