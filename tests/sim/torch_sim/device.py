"""``torch.sim``: what PyTorch and libraries ask of a kind of device's module, by the names of ``torch.cuda``."""

from __future__ import annotations

import types
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from torch_sim import _C

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Device = torch.device | str | int | None


class DeviceModule(types.ModuleType):
    """The module. A device that is not given is the current one."""

    Stream, Event = torch.Stream, torch.Event

    def is_available(self) -> bool:
        return True

    def is_initialized(self) -> bool:
        return any(_C.is_touched(n) for n in range(_C.device_count()))

    def init(self) -> None:
        """Nothing has to be done before a device is used."""

    def _is_in_bad_fork(self) -> bool:
        return bool(_C.in_bad_fork())

    def device_count(self) -> int:
        return int(_C.device_count())

    def current_device(self) -> int:
        return torch.accelerator.current_device_index()

    def set_device(self, device: Device) -> None:
        torch.accelerator.set_device_index(_index(device))

    @contextmanager
    def device(self, device: Device) -> Iterator[None]:
        before = self.current_device()
        self.set_device(device)
        try:
            yield
        finally:
            self.set_device(before)

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]

    # random numbers

    @property
    def default_generators(self) -> tuple[torch.Generator, ...]:
        return tuple(_C.default_generator(n) for n in range(_C.device_count()))

    def manual_seed(self, seed: int) -> None:
        """Seed the current device's generator, and no other's."""
        _C.default_generator(self.current_device()).manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        for generator in self.default_generators:
            generator.manual_seed(seed)

    def get_rng_state(self, device: Device = None) -> torch.Tensor:
        return self.default_generators[_index(device)].get_state()

    def set_rng_state(self, state: torch.Tensor, device: Device = None) -> None:
        self.default_generators[_index(device)].set_state(state)

    # streams

    def current_stream(self, device: Device = None) -> torch.Stream:
        return torch.accelerator.current_stream(_index(device))

    def synchronize(self, device: Device = None) -> None:
        torch.accelerator.synchronize(_index(device))

    @contextmanager
    def stream(self, stream: torch.Stream | None) -> Iterator[None]:
        if stream is None:
            yield
            return
        before = torch.accelerator.current_stream(stream.device)
        torch.accelerator.set_stream(stream)
        try:
            yield
        finally:
            torch.accelerator.set_stream(before)

    # memory

    def get_device_name(self, device: Device = None) -> str:
        return "Simulated"

    def get_device_properties(self, device: Device = None) -> types.SimpleNamespace:
        return types.SimpleNamespace(name="Simulated", total_memory=_C.total_memory())

    def get_device_capability(self, device: Device = None) -> tuple[int, int]:
        return (1, 0)

    def set_per_process_memory_fraction(self, fraction: float, device: Device = None) -> None:
        _C.limit_memory(_index(device), int(fraction * _C.total_memory()))

    def mem_get_info(self, device: Device = None) -> tuple[int, int]:
        free, total = torch.accelerator.get_memory_info(_index(device))
        return free, total

    def context_size(self, device: Device = None) -> int:
        """Bytes that the device holds for this process besides tensors."""
        return int(_C.context(_index(device)))

    def host_register(self, address: int, size: int) -> int:
        """Pin memory of the host's; returns 0, or the error that the CUDA runtime would give.

        As there, the current device is used for it.
        """
        torch.empty(1, device=torch.device("sim", self.current_device()))
        return int(_C.host_register(address, size))

    def host_unregister(self, address: int) -> int:
        return int(_C.host_unregister(address))

    def empty_cache(self) -> None:
        torch.accelerator.empty_cache()

    def memory_allocated(self, device: Device = None) -> int:
        return torch.accelerator.memory_allocated(_index(device))

    def max_memory_allocated(self, device: Device = None) -> int:
        return torch.accelerator.max_memory_allocated(_index(device))

    def memory_reserved(self, device: Device = None) -> int:
        return torch.accelerator.memory_reserved(_index(device))

    def max_memory_reserved(self, device: Device = None) -> int:
        return torch.accelerator.max_memory_reserved(_index(device))

    def memory_stats(self, device: Device = None) -> dict[str, Any]:
        return dict(torch.accelerator.memory_stats(_index(device)))

    def reset_peak_memory_stats(self, device: Device = None) -> None:
        torch.accelerator.reset_peak_memory_stats(_index(device))


def _index(device: Device) -> int:
    if isinstance(device, int):
        return device
    index = torch.device(device).index if device is not None else None
    return torch.accelerator.current_device_index() if index is None else index


def register() -> Sequence[str]:
    """Make the device known to PyTorch as ``sim``; returns the names of its devices."""
    torch.utils.rename_privateuse1_backend("sim")
    torch._register_device_module("sim", DeviceModule("torch.sim"))
    torch.utils.generate_methods_for_privateuse1_backend()
    return [f"sim:{n}" for n in range(_C.device_count())]
