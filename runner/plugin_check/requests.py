"""Sending a process out to look at a plugin: whatever the plugin does there, its sender stays well."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.machine import malloc as heap
from runner.machine.active_time import active_seconds
from runner.machine.ram import is_suspended
from runner.plugin_check import overtime
from runner.plugin_check.checks import BROKEN, Verdict
from runner.supervisor.spawn import kill_group

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

LOG_LINES = 15
LOOK = 0.1  # seconds
SILENCE = 20.0  # seconds beside its time, after which a process that tells nothing lets no thread of ours run
DUMP = "(most recent call first):"  # what faulthandler prints before each thread's stack, the main one's last


@dataclass(frozen=True)
class CheckRequest:
    """Look at how a plugin loads; or, with ``manifest`` alone, run that; or, with ``stages``, try these.

    Without a manifest, a stage is run on the ``case`` (:class:`runner.plugin_check.harness.Case` as JSON), or
    on synthetic inputs if that is not given.
    """

    folder: str
    """Where runs, hand-offs and files go; it is the sender's to remove."""
    seconds: float
    """The time for loading, for the manifest, or for each stage."""
    plugin: str = ""
    distribution: str = ""
    manifest: str = ""
    stages: Sequence[str] = ()
    """By the manifest's names for them, or without one by the plugin's."""
    case: dict[str, Any] | None = None


def send(request: CheckRequest) -> list[Verdict]:
    """Do an request in a process of its own, and return what it found."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(os.path.abspath(place) for place in sys.path),  # noqa: PTH100
        **heap.ENVIRONMENT,  # memory is measured there
    }
    with tempfile.NamedTemporaryFile() as told, tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "runner.plugin_check", json.dumps(vars(request))],
            stdin=subprocess.DEVNULL,
            stdout=told,
            stderr=log,
            env=environment,
            start_new_session=True,
        )
        try:
            aborted = _wait(process, Path(told.name), request)
        finally:  # also at Ctrl-C
            _end(process)
        log.seek(0)
        return list(_found(_lines(Path(told.name)), process.returncode, log.read(), aborted))


def _wait(process: subprocess.Popen[bytes], told: Path, request: CheckRequest) -> set[int]:
    """Wait until it ends; returns the processes that were ended because they told nothing for too long."""
    patience = (3 if request.manifest and not request.stages else 1) * (request.seconds + SILENCE)
    heard, size = active_seconds(), 0
    aborted: set[int] = set()
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(LOOK)
            return aborted
        if told.stat().st_size != size:
            heard, size = active_seconds(), told.stat().st_size
        elif active_seconds() - heard > patience:
            heard = active_seconds()
            last = next((line["process"] for line in reversed(_lines(told)) if "process" in line), None)
            if last is not None and not is_suspended(last):
                aborted.add(last)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(last, signal.SIGABRT)  # it says where it is, by faulthandler, and ends


def _lines(told: Path) -> list[dict[str, Any]]:
    with told.open("rb") as file:
        return [json.loads(line) for line in file if line.endswith(b"\n")]


def _end(process: subprocess.Popen[bytes]) -> None:
    """End it with what it started."""
    kill_group(process.pid)
    process.kill()
    process.wait()


def _found(lines: list[dict[str, Any]], code: int, log: bytes, aborted: Collection[int]) -> Iterator[Verdict]:
    """The verdicts among what was told, and one on the check that was the last before an early end."""
    last: dict[str, Any] = {}
    process = 0
    for line in lines if code == 0 else [*lines, {"died": code, "at": len(log)}]:
        process = line.get("process", process)
        if "began" in line:
            last = line
        elif "died" in line and not last:
            raise RuntimeError(f"it ended before it began, code {code}:\n{log.decode(errors='replace')}")
        elif "died" in line:
            printed = log[last["at"] : line["at"]].decode(errors="replace")
            yield (
                _of_overtime(last, printed)
                if process in aborted
                else _of_early_end(last, line["died"], printed)
            )
        elif "verdict" in line:
            verdict = Verdict(**line["verdict"])
            tells_more = (verdict.check, verdict.status) == (last["began"], BROKEN)
            printed = log[last["at"] : line["at"]].decode(errors="replace")
            yield replace(verdict, log=verdict.log or (_tail(printed) if tells_more else ""))


def _of_early_end(last: dict[str, Any], code: int, log: str) -> Verdict:
    told = f"its process was ended by signal {-code}" if code < 0 else f"its process exited: {code}"
    advice = "a stage raises what is wrong, and lives on"
    return Verdict(last["subject"], last["began"], BROKEN, told, advice, _tail(log))


def _of_overtime(last: dict[str, Any], log: str) -> Verdict:
    stack = overtime.places(log.rpartition(DUMP)[2])
    told, shown = overtime.tell(stack, last["seconds"], last["packages"])
    told += ", which lets no other thread run"
    return Verdict(last["subject"], last["began"], BROKEN, told, overtime.ADVICE, shown)


def _tail(log: str) -> str:
    return "\n".join(log.splitlines()[-LOG_LINES:])
