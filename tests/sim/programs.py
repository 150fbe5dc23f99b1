"""What the tests run on the simulated devices, each in a process of its own. All return what pickles."""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable

OPERATORS: dict[str, Callable[[str], torch.Tensor]] = {
    "linear": lambda d: functional.linear(torch.ones(2, 8, device=d), torch.ones(4, 8, device=d)),
    "conv2d": lambda d: functional.conv2d(
        _range(1, 3, 8, 8, device=d), _range(4, 3, 3, 3, device=d), padding=1
    ),
    "conv3d": lambda d: functional.conv3d(_range(1, 2, 3, 4, 4, device=d), _range(2, 2, 3, 3, 3, device=d)),
    "layer_norm": lambda d: functional.layer_norm(_range(2, 8, device=d), (8,)),
    "group_norm": lambda d: functional.group_norm(_range(1, 4, 4, 4, device=d), 2),
    "attention": lambda d: functional.scaled_dot_product_attention(*[_range(1, 2, 4, 8, device=d)] * 3),
    "embedding": lambda d: functional.embedding(torch.tensor([1, 2], device=d), _range(4, 3, device=d)),
    "gelu": lambda d: functional.gelu(_range(4, device=d), approximate="tanh"),
    "interpolate": lambda d: functional.interpolate(
        _range(1, 1, 4, 4, device=d), scale_factor=2, mode="nearest"
    ),
    "pad": lambda d: functional.pad(_range(2, 2, device=d), (1, 1, 1, 1)),
    "cat": lambda d: torch.cat([torch.ones(2, device=d), torch.zeros(3, device=d)]),
    "chunk": lambda d: torch.cat(_range(6, device=d).chunk(3)),
    "nonzero": lambda d: torch.tensor([0, 1, 2, 0, 3], device=d).nonzero(),
    "boolean index": lambda d: _range(3, device=d)[torch.tensor([True, False, True], device=d)],
    "integer index": lambda d: _range(3, device=d)[torch.tensor([2, 0])],
    "assignment": lambda d: _assigned(torch.zeros(2, 3, device=d)),
    "complex": lambda d: torch.view_as_real(torch.view_as_complex(_range(3, 2, device=d)) * 2),
    "fft": lambda d: torch.view_as_real(torch.fft.rfft(_range(8, device=d))),
    "einsum": lambda d: torch.einsum("ab,bc->ac", _range(2, 3, device=d), _range(3, 2, device=d)),
    "out": lambda d: torch.add(torch.ones(3, device=d), 1, out=torch.empty(0, device=d)),
    "in place": lambda d: _range(3, device=d).add_(1).mul_(2),
    "sort": lambda d: torch.sort(torch.tensor([3, 1, 2], device=d))[1],
    "topk": lambda d: _range(5, device=d).topk(2)[0],
    "where": lambda d: torch.where(_range(3, device=d) > 1, 1.0, torch.zeros(3, device=d)),
    "equal": lambda d: torch.tensor(torch.equal(torch.ones(3, device=d), torch.ones(3, device=d))),
    "bfloat16": lambda d: _range(3, device=d).to(torch.bfloat16) * 1.5,
    "float8": lambda d: _range(4, device=d).to(torch.float8_e4m3fn).to(torch.float32),
    "int8": lambda d: torch.ones(3, dtype=torch.int8, device=d) + 2,
    "transposed": lambda d: _range(2, 3, device=d).t().contiguous(),
}


def _range(*shape: int, device: str) -> torch.Tensor:
    count = 1
    for size in shape:
        count *= size
    return (torch.arange(count, dtype=torch.float32, device=device) / 7).view(shape)


def _assigned(tensor: torch.Tensor) -> torch.Tensor:
    tensor[0, :] = 5.0
    return tensor


def differing_operators() -> list[str]:
    """Operators whose results on the device are not those of the CPU, to the bit."""
    return [name for name, made in OPERATORS.items() if not _same(made("sim").cpu(), made("cpu"))]


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.equal(a, b) and a.stride() == b.stride() and a.dtype == b.dtype


def double_buffered(fault: str) -> tuple[list[float], list[str]]:
    """Copies numbers 0 to 5 through one slot of the device and one of pinned memory, adding each up there.

    Right if ``fault`` is "none"; else without the wait that it names. Returns the sums, and the violations.
    """
    import torch_sim

    host = torch.empty(1 << 16, pin_memory=True)
    slot = torch.empty(1 << 16, device="sim")
    torch.accelerator.synchronize()
    copying, computing = torch.Stream("sim"), torch.accelerator.current_stream()
    arrived, left = torch.Event("sim"), torch.Event("sim")
    left.record(computing)
    results = []
    for number in range(6):
        if fault != "host":
            arrived.synchronize()
        host.fill_(number)
        with copying:
            if fault != "left":
                copying.wait_event(left)
            slot.copy_(host, non_blocking=True)
            arrived.record(computing if fault == "wrong stream" else copying)
        if fault != "arrived":
            computing.wait_event(arrived)
        if fault == "early":
            left.record(computing)
        results.append(slot.mean())
        if fault != "early":
            left.record(computing)
    return [result.item() for result in results], torch_sim.take_violations()


def freed_under_a_copy() -> list[str]:
    """Lets pinned memory go while a copy out of it waits; returns the violations."""
    import torch_sim

    host = torch.ones(4096)
    torch.sim.host_register(host.data_ptr(), 4096 * 4)  # type: ignore[attr-defined]
    target = torch.zeros(4096, device="sim")
    torch.accelerator.synchronize()
    with torch.Stream("sim"):
        target.copy_(host, non_blocking=True)
    torch.sim.host_unregister(host.data_ptr())  # type: ignore[attr-defined]
    torch.accelerator.synchronize()
    found: list[str] = torch_sim.take_violations()
    return found


def out_of_memory(limit: float) -> tuple[int, str]:
    """Allocates MiB after MiB; returns how many there were, and the error."""
    torch.sim.set_per_process_memory_fraction(limit)  # type: ignore[attr-defined]
    held = []
    try:
        while len(held) < 1000:
            held.append(torch.empty(1 << 21, dtype=torch.uint8, device="sim"))
    except torch.OutOfMemoryError as error:
        return len(held), str(error)
    return len(held), ""


def peaks() -> dict[str, int]:
    """What the allocator holds and has held at most, in MiB: 40 at once, then nothing."""
    tensor = torch.empty(40 << 20, dtype=torch.uint8, device="sim")
    del tensor
    torch.accelerator.empty_cache()
    return {
        "peak": torch.accelerator.max_memory_reserved() >> 20,
        "now": torch.accelerator.memory_reserved() >> 20,
        "free": torch.accelerator.get_memory_info()[0] >> 20,
    }


def recycled() -> bool:
    """Whether a new tensor in memory that was used before holds NaN."""
    torch.ones(100, device="sim")
    return bool(torch.empty(100, device="sim").isnan().all())


def used_on_the_other_stream(recorded: bool) -> list[str]:
    """Frees a tensor that another stream still reads, and takes its memory; returns the violations."""
    import torch_sim

    tensor = torch.ones(1 << 16, device="sim")
    side = torch.Stream("sim")
    side.wait_stream(torch.accelerator.current_stream())
    with side:
        total = tensor.sum()
    if recorded:
        tensor.record_stream(side)
    del tensor
    torch.zeros(1 << 16, device="sim")
    torch.accelerator.current_stream().wait_stream(side)
    total.cpu()
    found: list[str] = torch_sim.take_violations()
    return found


def second_device() -> dict[str, Any]:
    """Computes on ``sim:1`` alone."""
    import torch_sim

    torch.accelerator.set_device_index(1)
    torch.sim.manual_seed(7)  # type: ignore[attr-defined]
    drawn = torch.rand(3, device="sim:1").cpu().tolist()
    pinned = torch.empty(100, pin_memory=True)
    moved = torch.ones(100, device="sim:1").copy_(pinned.fill_(2.0), non_blocking=True).sum().item()
    return {
        "drawn": drawn,
        "moved": moved,
        "touched": [torch_sim.is_touched(n) for n in range(2)],
        "default": str(torch.empty(1, device="sim").device),
    }


def between_devices() -> tuple[list[float], str]:
    """A copy from device to device, and what mixing them says."""
    there = torch.arange(4.0, device="sim:0").to("sim:1")
    try:
        there.add(torch.ones(4, device="sim:0"))
    except RuntimeError as error:
        return there.tolist(), str(error)
    return there.tolist(), ""


def seeded(device: str) -> list[float]:
    """Numbers drawn from a seeded generator of the device."""
    generator = torch.Generator(device).manual_seed(5)
    drawn: list[float] = torch.randn(4, generator=generator, device=device).tolist()
    return drawn


def mixed_with_the_host() -> str:
    try:
        torch.ones(3, device="sim").add(torch.ones(3))
    except RuntimeError as error:
        return str(error)
    return ""


def after_an_error() -> list[str]:
    """What two calls after an error on the device raise."""
    import torch_sim

    torch.ones(1, device="sim")
    torch_sim.fail("an assert of a kernel")
    raised = []
    for _ in range(2):
        try:
            torch.ones(1, device="sim")
        except torch.AcceleratorError as error:
            raised.append(str(error))
    return raised


def read_by_the_host() -> int:
    """How a child ends that reads the device's memory: minus the signal's number."""
    tensor = torch.ones(10, device="sim")
    child = os.fork()
    if child == 0:
        ctypes.string_at(tensor.data_ptr(), 4)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def used_after_a_fork() -> int:
    """How a child ends that uses the device of its parent: 3 if it is refused."""
    torch.ones(1, device="sim")
    child = os.fork()
    if child == 0:
        try:
            torch.ones(1, device="sim")
        except RuntimeError as error:
            os._exit(3 if "forked subprocess" in str(error) else 4)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def elapsed() -> float:
    """Milliseconds between two events, with work between them."""
    first, last = torch.Event("sim", enable_timing=True), torch.Event("sim", enable_timing=True)
    numbers = torch.ones(1 << 16, device="sim")
    first.record()
    for _ in range(20):
        numbers.add_(1)
    last.record()
    last.synchronize()
    return first.elapsed_time(last)
