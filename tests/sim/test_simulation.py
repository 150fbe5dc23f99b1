"""The simulated accelerator itself: it computes as the CPU does, and faults of its users show."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sim import programs
from sim.forked import POLICIES

if TYPE_CHECKING:
    from sim.forked import Simulation

RIGHT = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


@pytest.mark.parametrize("policy", POLICIES)
def test_operators_have_the_bits_of_the_cpu(simulation: Simulation, policy: str) -> None:
    assert simulation.call(programs.differing_operators, policy=policy, seed=3) == []


@pytest.mark.parametrize("policy", POLICIES)
def test_a_right_program_computes_right_without_violations(simulation: Simulation, policy: str) -> None:
    assert simulation.call(programs.double_buffered, "none", policy=policy) == (RIGHT, [])


@pytest.mark.parametrize("fault", ["arrived", "left", "early", "wrong stream", "host"])
@pytest.mark.parametrize("policy", POLICIES)
def test_a_missing_wait_is_a_race_whatever_the_policy(
    simulation: Simulation, policy: str, fault: str
) -> None:
    _, violations = simulation.call(programs.double_buffered, fault, policy=policy)
    assert violations
    assert all(violation.startswith("race: ") for violation in violations)
    assert ("the host writes" in violations[0]) == (fault == "host")


@pytest.mark.parametrize(
    ("fault", "policy"),
    [("arrived", "late-copies"), ("left", "late-compute"), ("early", "late-compute"), ("host", "late")],
)
def test_a_missing_wait_makes_wrong_numbers_where_the_other_side_lags(
    simulation: Simulation, fault: str, policy: str
) -> None:
    results, _ = simulation.call(programs.double_buffered, fault, policy=policy)
    assert results != RIGHT


def test_pinned_memory_that_is_freed_too_early(simulation: Simulation) -> None:
    violations = simulation.call(programs.freed_under_a_copy, policy="late")
    assert [violation.partition(":")[0] for violation in violations] == ["use after free"] * 2


def test_memory_has_a_limit(simulation: Simulation) -> None:
    count, error = simulation.call(programs.out_of_memory, 0.5, SIM_MEMORY=str(64 << 20))
    assert count == 10  # 2 MiB each, cut from segments of 20 MiB: one fits below 32
    assert "out of memory" in error
    count, _ = simulation.call(
        programs.out_of_memory, 1.0, SIM_MEMORY=str(64 << 20), SIM_CONTEXT=str(32 << 20)
    )
    assert count == 10


def test_peaks_are_kept_and_memory_goes_back(simulation: Simulation) -> None:
    assert simulation.call(programs.peaks, SIM_MEMORY=str(64 << 20)) == {"peak": 40, "now": 0, "free": 64}


def test_new_memory_holds_no_numbers(simulation: Simulation) -> None:
    assert simulation.call(programs.recycled, policy="late")


@pytest.mark.parametrize("recorded", [True, False])
def test_memory_that_another_stream_uses_must_be_recorded(simulation: Simulation, recorded: bool) -> None:
    violations = simulation.call(programs.used_on_the_other_stream, recorded, policy="late-copies")
    assert bool(violations) != recorded


def test_the_second_device_leaves_the_first_alone(simulation: Simulation) -> None:
    found = simulation.call(programs.second_device)
    assert found["touched"] == [False, True]
    assert found["moved"] == 200.0
    assert found["default"] == "sim:1"


def test_devices_do_not_mix(simulation: Simulation) -> None:
    copied, error = simulation.call(programs.between_devices, policy="late")
    assert copied == [0.0, 1.0, 2.0, 3.0]
    assert "sim:1 and sim:0" in error
    assert "same device" in simulation.call(programs.mixed_with_the_host)


def test_random_numbers_are_its_own_and_of_the_moment_of_the_call(simulation: Simulation) -> None:
    drawn = simulation.call(programs.seeded, "sim")
    assert drawn == simulation.call(programs.seeded, "sim", policy="late")
    assert drawn != simulation.call(programs.seeded, "cpu")


def test_an_error_on_the_device_stays(simulation: Simulation) -> None:
    raised = simulation.call(programs.after_an_error)
    assert len(raised) == 2
    assert all("an assert of a kernel" in error for error in raised)


def test_the_host_cannot_read_its_memory(simulation: Simulation) -> None:
    assert simulation.call(programs.read_by_the_host) == -signal.SIGSEGV


def test_a_fork_cannot_use_its_parents_device(simulation: Simulation) -> None:
    assert simulation.call(programs.used_after_a_fork) == 3


def test_events_tell_time(simulation: Simulation) -> None:
    assert simulation.call(programs.elapsed, policy="late") > 0


@pytest.mark.parametrize(("fault", "status"), [("none", 0), ("left", 86)])
@pytest.mark.parametrize("leave", ["pass", "os._exit(0)"])
def test_a_checked_process_fails_that_saw_a_violation(
    simulation: Simulation, fault: str, status: int, leave: str
) -> None:
    program = f"""
import os, torch, torch_sim
from sim.programs import double_buffered
taken, torch_sim.take_violations = torch_sim.take_violations, lambda: []
try:
    double_buffered({fault!r})
except torch.AcceleratorError as error:
    print("failed:", error)
torch_sim.take_violations = taken
{leave}
"""
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent)])
    environment = {**os.environ, "PYTHONPATH": path, "SIM_CHECK": "1", "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stderr
    assert ("failed: " in done.stdout) == ("torch_sim: race: " in done.stderr) == bool(status)
