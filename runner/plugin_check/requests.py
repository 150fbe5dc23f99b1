"""Runs plugin checks in a subprocess, so that a crash or a hang of the plugin cannot reach the caller."""

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

from runner.machine import malloc
from runner.machine.active_time import active_seconds
from runner.machine.ram import is_suspended
from runner.plugin_check import time_limit
from runner.plugin_check.checks import BROKEN, Verdict
from runner.supervisor.processes.spawn import kill_group

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

LOG_LINES = 15
POLL_INTERVAL = 0.1  # seconds
SILENCE = 20.0  # seconds after its time limit; a process silent for longer cannot even run its own watchdog
DUMP = "(most recent call first):"  # faulthandler's line before each thread's stack, the main thread's last


@dataclass(frozen=True)
class CheckRequest:
    """What to check: how a plugin loads; with ``stages``, these stages; with a ``manifest`` alone, its run.

    Without a manifest, a stage is run on the ``case`` (:class:`runner.plugin_check.harness.Case` as JSON), or
    on synthetic inputs if there is none.
    """

    folder: str
    """For runs, hand-offs and files; the caller removes it."""
    seconds: float
    """The time limit for loading, for each item of the manifest at a stage, or for each stage."""
    plugin: str = ""
    distribution: str = ""
    manifest: str = ""
    stages: Sequence[str] = ()
    """Their names in the manifest, or without one in the plugin."""
    case: dict[str, Any] | None = None


def run_check(request: CheckRequest) -> list[Verdict]:
    """Run the requested checks in a subprocess and return their verdicts."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(os.path.abspath(place) for place in sys.path),  # noqa: PTH100
        **malloc.ENVIRONMENT,  # memory is measured there
    }
    with tempfile.NamedTemporaryFile() as report, tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "runner.plugin_check", json.dumps(vars(request))],
            stdin=subprocess.DEVNULL,
            stdout=report,
            stderr=log,
            env=environment,
            start_new_session=True,
        )
        try:
            aborted = _wait(process, Path(report.name), request)
        finally:  # also at Ctrl-C
            _end(process)
        log.seek(0)
        return list(_verdicts(_lines(Path(report.name)), process.returncode, log.read(), aborted))


def _wait(process: subprocess.Popen[bytes], report: Path, request: CheckRequest) -> set[int]:
    """Wait until it ends; returns the processes that were aborted because they wrote nothing for too long."""
    patience = (3 if request.manifest and not request.stages else 1) * (request.seconds + SILENCE)
    changed, size = active_seconds(), 0
    aborted: set[int] = set()
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(POLL_INTERVAL)
            return aborted
        if report.stat().st_size != size:
            changed, size = active_seconds(), report.stat().st_size
        elif active_seconds() - changed > patience:
            changed = active_seconds()
            last = next((line["process"] for line in reversed(_lines(report)) if "process" in line), None)
            if last is not None and not is_suspended(last):
                aborted.add(last)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(last, signal.SIGABRT)  # faulthandler prints its stack, and it ends


def _lines(report: Path) -> list[dict[str, Any]]:
    with report.open("rb") as file:
        return [json.loads(line) for line in file if line.endswith(b"\n")]


def _end(process: subprocess.Popen[bytes]) -> None:
    """End it with what it started."""
    kill_group(process.pid)
    process.kill()
    process.wait()


def _verdicts(
    lines: list[dict[str, Any]], code: int, log: bytes, aborted: Collection[int]
) -> Iterator[Verdict]:
    """The verdicts of a report, and one for each check whose process ended early."""
    check: dict[str, Any] = {}
    process = 0
    for line in lines if code == 0 else [*lines, {"exited": code, "printed": len(log)}]:
        process = line.get("process", process)
        if "started" in line:
            check = line
        elif "exited" in line and not check:
            raise RuntimeError(f"it ended before any check, code {code}:\n{log.decode(errors='replace')}")
        elif "exited" in line or "verdict" in line:
            printed = log[check["printed"] : line["printed"]].decode(errors="replace")
            if "verdict" in line:
                yield _with_log(Verdict(**line["verdict"]), check, printed)
            elif process in aborted:
                yield _timed_out(check, printed)
            else:
                yield _ended_early(check, line["exited"], printed)


def _with_log(verdict: Verdict, check: dict[str, Any], printed: str) -> Verdict:
    """The verdict with what was printed, if it is about the failure of the check that ran."""
    failed = (verdict.check, verdict.status) == (check["started"], BROKEN)
    return replace(verdict, log=verdict.log or (_tail(printed) if failed else ""))


def _ended_early(check: dict[str, Any], code: int, printed: str) -> Verdict:
    message = f"its process was killed by signal {-code}" if code < 0 else f"its process exited: {code}"
    advice = "a stage must raise an exception for an error, and not end its process"
    return Verdict(check["subject"], check["started"], BROKEN, message, advice, _tail(printed))


def _timed_out(check: dict[str, Any], printed: str) -> Verdict:
    stack = time_limit.call_sites(printed.rpartition(DUMP)[2])
    message, log = time_limit.describe(stack, check["seconds"], check["packages"])
    message += ", which lets no other thread run"
    return Verdict(check["subject"], check["started"], BROKEN, message, time_limit.ADVICE, log)


def _tail(printed: str) -> str:
    return "\n".join(printed.splitlines()[-LOG_LINES:])
