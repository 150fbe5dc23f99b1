"""The clock that stands still while its process is suspended, in a real process that is."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

SUSPENDED = 2.5  # seconds
TELLS = """
import math, sys, time
from runner.machine.active_time import active_seconds
active_seconds()
for line in sys.stdin:
    if line == "compute\\n":
        math.factorial(150_000)  # lets no other thread run
    print(active_seconds(), time.monotonic(), time.process_time(), flush=True)
"""


def test_suspended_time_does_not_count_and_computing_without_other_threads_does() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", TELLS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        requests, answers = process.stdin, process.stdout
        assert requests is not None
        assert answers is not None

        def read(ask: str) -> tuple[float, ...]:
            requests.write(f"{ask}\n")
            requests.flush()
            return tuple(map(float, answers.readline().split()))

        active, wall, _ = read("now")
        process.send_signal(signal.SIGSTOP)
        time.sleep(SUSPENDED)  # what is measured
        process.send_signal(signal.SIGCONT)
        after, wall_after, cpu = read("now")
        assert wall_after - wall >= SUSPENDED
        assert after - active <= wall_after - wall - 0.8 * SUSPENDED

        computed, _, cpu_after = read("compute")
        assert computed - after >= 0.8 * (cpu_after - cpu)
        requests.close()
