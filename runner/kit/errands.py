"""Sending a process out to look at a plugin: whatever the plugin does there, its sender stays well."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from runner.kit.checks import BROKEN, Verdict
from runner.memory import heap
from runner.supervisor.spawn import kill_group

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LOG_LINES = 15
OVERTIME = "Timeout ("  # how faulthandler begins what it prints


@dataclass(frozen=True)
class Errand:
    """Look at how a plugin loads; or, with ``manifest`` alone, run that; or, with ``stages``, try these.

    Without a manifest a stage is tried on the ``case``, see :class:`runner.kit.trial.Case`, as JSON has it;
    without that, on what can be made up.
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


def send(errand: Errand) -> list[Verdict]:
    """Do an errand in a process of its own, and return what it found."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(os.path.abspath(place) for place in sys.path),  # noqa: PTH100
        **heap.ENVIRONMENT,  # memory is measured there
    }
    with tempfile.TemporaryFile() as told, tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "runner.kit", json.dumps(vars(errand))],
            stdin=subprocess.DEVNULL,
            stdout=told,
            stderr=log,
            env=environment,
            start_new_session=True,
        )
        try:
            process.wait()
        finally:  # also at Ctrl-C
            _end(process)
        for file in (told, log):
            file.seek(0)
        lines = [json.loads(line) for line in told if line.endswith(b"\n")]
        return list(_found(lines, process.returncode, log.read()))


def _end(process: subprocess.Popen[bytes]) -> None:
    """End it with what it started."""
    kill_group(process.pid)
    process.kill()
    process.wait()


def _found(lines: list[dict[str, Any]], code: int, log: bytes) -> Iterator[Verdict]:
    """The verdicts among what was told, and one on the check that was the last before an early end."""
    last: dict[str, Any] = {}
    for line in lines if code == 0 else [*lines, {"died": code, "at": len(log)}]:
        if "began" in line:
            last = line
        elif "died" in line and not last:
            raise RuntimeError(f"it ended before it began, code {code}:\n{log.decode(errors='replace')}")
        elif "died" in line:
            yield _of_early_end(last, line["died"], log[last["at"] : line["at"]].decode(errors="replace"))
        else:
            verdict = Verdict(**line["verdict"])
            tells_more = (verdict.check, verdict.status) == (last["began"], BROKEN)
            printed = log[last["at"] : line["at"]].decode(errors="replace")
            yield replace(verdict, log=_tail(printed) if tells_more else "")


def _of_early_end(last: dict[str, Any], code: int, log: str) -> Verdict:
    overtime = log.find(OVERTIME)
    if overtime >= 0:
        told, advice = f"no end within {last['seconds']:g} s", "mend what it waits for, or give it more time"
        shown = "\n".join(log[overtime:].splitlines()[:LOG_LINES])  # where it was, the innermost first
    else:
        told = f"its process was ended by signal {-code}" if code < 0 else f"its process exited: {code}"
        advice, shown = "a stage raises what is wrong, and lives on", _tail(log)
    return Verdict(last["subject"], last["began"], BROKEN, told, advice, shown)


def _tail(log: str) -> str:
    return "\n".join(log.splitlines()[-LOG_LINES:])
