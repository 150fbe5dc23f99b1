"""What tests run on the simulated accelerator through the engine's own interface, each in a process of its own."""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING, Any

import torch

from runner.accelerator.backends import backend_of, is_out_of_memory

if TYPE_CHECKING:
    from runner.accelerator.backends.generic import AcceleratorBackend

SIM: Any = "sim"


def violations() -> list[str]:
    import torch_sim

    torch.accelerator.synchronize()
    found: list[str] = torch_sim.take_violations()
    return found


def described(device: str) -> dict[str, Any]:
    backend: Any = backend_of(device)
    backend.check()
    return {
        "name": backend.name(),
        "memory": backend.total_memory(),
        "context": backend.context_size(),
        "cpu": backend.device.type == "cpu",
        "device": str(backend.device),
    }


def refused(device: str) -> str:
    """What is wrong with a device that is not here."""
    try:
        backend_of(device).check()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def limited(limit: int) -> tuple[int | None, bool]:
    """Takes 2 MiB after 2 MiB under a limit; returns the most that was reserved, and whether the error is known."""
    backend = backend_of("sim:0")
    backend.limit_memory(limit)
    held: list[torch.Tensor] = []
    try:
        while len(held) < 1000:
            held.append(torch.empty(2 << 20, dtype=torch.uint8, device="sim:0"))
    except RuntimeError as error:
        return backend.reserved_peak(), is_out_of_memory(error)
    return backend.reserved_peak(), False


def seeded_on(device: str) -> dict[str, Any]:
    """Draws by a device's default generator, seeded by its backend, while another device is current."""
    import torch_sim

    backend = backend_of(device)
    backend.make_current()
    generator = backend.generator()
    assert generator is not None
    generator.manual_seed(11)
    first = torch.rand(4, device=device).cpu().tolist()
    generator.manual_seed(11)
    return {
        "first": first,
        "again": torch.rand(4, device=device).cpu().tolist(),
        "touched": [torch_sim.is_touched(n) for n in range(2)],
        "generators": len(backend.generators()),
    }


def pinned_exactly(size: int) -> dict[str, Any]:
    """Pins bytes of RAM; says where they lie, how many are pinned, and how many once all views are gone."""
    import torch_sim

    backend: AcceleratorBackend = backend_of("sim:0")  # type: ignore[assignment]
    memory = backend.pinned(size)
    view = memory[: size // 2]
    found = {"offset": memory.data_ptr() % 4096, "pinned": torch_sim.pinned()["bytes"], "size": len(memory)}
    del memory
    gc.collect()
    found["with a view"] = torch_sim.pinned()["regions"]
    del view
    gc.collect()
    return {**found, "regions": torch_sim.pinned()["regions"]}


def let_go_under_a_copy() -> tuple[float, list[str]]:
    """Drops pinned memory while the device copies from it; returns what arrived."""
    backend: AcceleratorBackend = backend_of("sim:0")  # type: ignore[assignment]
    target = torch.zeros(1 << 16, dtype=torch.uint8, device="sim:0")
    torch.accelerator.synchronize()
    memory = backend.pinned(1 << 16)
    memory.fill_(3)
    stream = backend.stream()
    with stream:
        target.copy_(memory, non_blocking=True)
    del memory
    gc.collect()
    backend.current_stream().wait_stream(stream)
    return target.float().mean().item(), violations()


def too_much_pinned() -> str:
    import torch_sim

    torch_sim.limit_pinned(1 << 20)
    backend: AcceleratorBackend = backend_of("sim:0")  # type: ignore[assignment]
    try:
        backend.pinned(2 << 20)
    except MemoryError as error:
        return str(error)
    return ""


def lost() -> dict[str, bool]:
    """Which errors mean that the device is lost to this process."""
    import torch_sim

    backend = backend_of("sim:0")
    torch.ones(1, device="sim:0")
    found = {
        "an item's": backend.is_lost(ValueError("a bad prompt")),
        "a shape's": backend.is_lost(RuntimeError("shapes do not match")),
        "out of memory": backend.is_lost(torch.OutOfMemoryError("out of memory")),
        "the driver's": backend.is_lost(torch.AcceleratorError("SIM error: out of memory")),
        "one that is pending no more": backend.is_lost(torch.AcceleratorError("an illegal memory access")),
    }
    torch_sim.fail("an illegal memory access")
    found["a pending one"] = backend.is_lost(RuntimeError("CUBLAS_STATUS_EXECUTION_FAILED"))
    try:
        torch.ones(1, device="sim:0")
    except torch.AcceleratorError as error:
        found["the device's"] = backend.is_lost(error)
    return found


def current_in_threads() -> list[int]:
    """The devices that threads use when none is named, after each has made its own current."""
    from concurrent.futures import ThreadPoolExecutor

    backend = backend_of("sim:1")
    with ThreadPoolExecutor(1, initializer=backend.make_current) as pool:
        there = pool.submit(torch.accelerator.current_device_index).result()
    return [torch.accelerator.current_device_index(), there]


class Counting(torch.nn.Module):
    """Multiplies by a weight, which has two names, and counts its calls."""

    calls: torch.Tensor

    def __init__(self, size: int, seed: int) -> None:
        super().__init__()
        numbers = torch.randn(size, 8, generator=torch.Generator().manual_seed(seed))
        self.weight = torch.nn.Parameter(numbers, requires_grad=False)
        self.same = torch.nn.Parameter(self.weight.data, requires_grad=False)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return (x @ self.weight.T @ self.same).tanh()


def swapped() -> dict[str, Any]:
    """Runs two components in turns, each swapped in when it runs."""
    from runner.placement.library import MappedModule
    from runner.placement.offloaded import ModelSwapper

    device = torch.device("sim:0")
    backend: AcceleratorBackend = backend_of(device)  # type: ignore[assignment]
    plain = [Counting(3000, 1), Counting(5000, 2)]
    swapper = ModelSwapper(backend)
    parts: list[Any] = [
        swapper.load(MappedModule(Counting(3000, 1), {})),
        swapper.load(MappedModule(Counting(5000, 2), {})),
    ]
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(3))
    expected, there = x, x.to(device)
    devices = [[str(part.weight.device.type) for part in parts]]
    before = backend.reset_peak()
    for n in (0, 1, 0):
        expected, there = plain[n](expected), parts[n](there)
        devices.append([str(part.weight.device.type) for part in parts])
    right = torch.equal(expected, there.cpu())
    lies = parts[0].weight.data_ptr()
    parts[0](there)
    stays = parts[0].weight.data_ptr() == lies
    parts[1](there)
    largest = 5000 * 8 * 4
    return {
        "right": right,
        "stays": stays,
        "devices": devices,
        "tied": parts[0].weight.data_ptr() == parts[0].same.data_ptr(),
        "peak": (backend.allocated_peak() - before) // 2**17,
        "largest": largest // 2**17,
        "counted": int(parts[0].calls.item()),
        "violations": violations(),
    }


def timed() -> dict[str, Any]:
    """Two items in turns: the first gives the device much to do, the second waits for all of it."""
    from runner.worker.device_timer import DeviceTimer, DeviceTurns

    device = torch.device("sim:0")
    turns = DeviceTurns(backend_of(device))  # type: ignore[arg-type]
    heavy, light = DeviceTimer(None, turns), DeviceTimer(None, turns)
    matrix = torch.ones(500, 500, device=device)
    waited = 0.0
    torch.accelerator.synchronize()
    for _ in range(3):
        with heavy:
            for _ in range(20):
                matrix = (matrix @ matrix).clamp(0, 1)
        began = time.perf_counter()
        with light:
            one = torch.ones(1, device=device) * 2
            one.cpu()
        waited += time.perf_counter() - began
    with light:
        light.settle()
        runs = light.runs
        at_once = light.seconds
    with heavy:
        heavy.settle()
    ended = [heavy.runs, light.runs]
    return {"heavy": heavy.seconds, "light": at_once, "waited": waited, "runs": runs, "ended": ended}
