"""The interface to a device, on the simulated accelerator and the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import device_programs as programs
import pytest
import torch
from sim.forked import POLICIES

from runner.accelerator.backends import backend_of, is_out_of_memory
from runner.errors import BudgetError

if TYPE_CHECKING:
    from sim.forked import Simulation

MIB = 1 << 20


def test_what_a_device_is(simulation: Simulation) -> None:
    found = simulation.call(programs.described, "sim", SIM_MEMORY=str(64 * MIB), SIM_CONTEXT=str(3 * MIB))
    assert found == {
        "name": "Simulated",
        "memory": 64 * MIB,
        "context": 3 * MIB,
        "cpu": False,
        "device": "sim:0",
    }


def test_a_device_that_is_not_here(simulation: Simulation) -> None:
    assert "PyTorch sees 2 here" in simulation.call(programs.refused, "sim:7")
    for name in ("cuda:0", "xpu:0"):
        with pytest.raises(BudgetError, match=f"{name}, and the PyTorch installed here has no support"):
            backend_of(name).check()


def test_the_cpu_has_no_device_memory_to_limit() -> None:
    backend = backend_of("cpu")
    backend.check()
    backend.limit_memory(1)
    assert torch.ones(10).sum() == 10
    assert (backend.reserved_peak(), backend.process_memory(), backend.generator()) == (None, None, None)
    assert backend.device.type == "cpu"
    assert backend.name().startswith("cpu ")


def test_the_allocator_keeps_to_the_limit(simulation: Simulation) -> None:
    peak, known = simulation.call(programs.limited, 20 * MIB)
    assert known
    assert 16 * MIB < peak <= 20 * MIB


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("HIP out of memory. Tried to allocate"), True),
        (torch.AcceleratorError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("UR backend failed: UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY"), True),
        (torch.AcceleratorError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("out of memory"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_errors_that_mean_out_of_memory(error: BaseException, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_each_device_has_a_generator_of_its_own(simulation: Simulation) -> None:
    found = simulation.call(programs.seeded_on, "sim:1")
    assert found["first"] == found["again"]
    assert found["touched"] == [False, True]
    assert found["generators"] == 2


def test_memory_is_pinned_to_the_byte_and_as_long_as_it_is_seen(simulation: Simulation) -> None:
    found = simulation.call(programs.pinned_exactly, 5 * MIB)
    assert found == {"offset": 0, "pinned": 5 * MIB, "size": 5 * MIB, "with a view": 1, "regions": 0}


@pytest.mark.parametrize("policy", POLICIES)
def test_pinned_memory_outlives_the_copies_from_it(simulation: Simulation, policy: str) -> None:
    assert simulation.call(programs.let_go_under_a_copy, policy=policy) == (3.0, [])


def test_more_than_can_be_pinned(simulation: Simulation) -> None:
    assert "cannot be pinned for the device (error 2)" in simulation.call(programs.too_much_pinned)


def test_a_lost_device(simulation: Simulation) -> None:
    assert simulation.call(programs.lost) == {
        "an item's": False,
        "a shape's": False,
        "out of memory": False,
        "the driver's": False,
        "one that is pending no more": True,
        "a pending one": True,
        "the device's": True,
    }


def test_threads_use_the_device_that_they_are_given(simulation: Simulation) -> None:
    assert simulation.call(programs.current_in_threads) == [0, 1]
