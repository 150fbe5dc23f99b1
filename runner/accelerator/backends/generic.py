"""Any accelerator, through torch.accelerator, or its kind's own module where that lacks a function."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from runner.accelerator.backends.base import Backend, is_out_of_memory
from runner.accelerator.backends.pinned import registered
from runner.errors import BudgetError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class AcceleratorBackend(Backend):
    """XPU, MPS, and the simulated accelerator of the tests."""

    tokens_to_measure = 4096

    @property
    def _module(self) -> Any:
        return torch.get_device_module(self.device.type)

    def in_use(self) -> bool:
        """Whether this process has used accelerators of this kind."""
        return bool(self._module.is_initialized())

    def name(self) -> str:
        named = getattr(self._module, "get_device_name", None)
        return str(named(self.device)) if named else self.device.type

    def uuid(self) -> str:
        properties = getattr(self._module, "get_device_properties", None)
        return str(getattr(properties(self.device), "uuid", "")) if properties else ""

    def check(self) -> None:
        module = getattr(torch, self.device.type, None)
        if module is None or not module.is_available():
            raise BudgetError(
                f"the device is {self.device}, and the PyTorch installed here has no support for it"
            )
        if (self.device.index or 0) >= module.device_count():
            raise BudgetError(f"the device is {self.device}, and PyTorch sees {module.device_count()} here")

    def survives_fork(self) -> bool:
        in_bad_fork = getattr(self._module, "_is_in_bad_fork", None)
        if in_bad_fork is not None and in_bad_fork():
            return False
        try:
            torch.zeros(1, device=self.device)
        except (RuntimeError, AssertionError) as error:  # the latter: torch has no support for it
            # the driver was initialised before the fork, by another library than torch
            return is_out_of_memory(error) or "initialization error" not in str(error)
        return True

    def make_current(self) -> None:
        torch.accelerator.set_device_index(self.device.index)

    def synchronize(self) -> None:
        torch.accelerator.synchronize(self.device)

    def stream(self) -> torch.Stream:
        """A new stream; its work runs in parallel with that of others."""
        return torch.Stream(self.device)

    def current_stream(self) -> torch.Stream:
        """The stream that this thread computes in."""
        return torch.accelerator.current_stream(self.device)

    def current_streams(self) -> list[torch.Stream]:
        """The current stream of each device of this kind, the current device's last."""
        current = torch.accelerator.current_device_index()
        others = [n for n in range(torch.accelerator.device_count()) if n != current]
        return [torch.accelerator.current_stream(n) for n in (*others, current)]

    def event(self, *, timing: bool = False) -> torch.Event:
        """A mark in a stream, which others can wait for; with ``timing``, also a time."""
        return torch.Event(self.device, enable_timing=timing)

    def total_memory(self) -> int:
        return int(torch.accelerator.get_memory_info(self.device)[1])

    def limit_memory(self, limit: int | None) -> None:
        # torch.accelerator has no such function, and only some kinds' modules do
        fraction = getattr(self._module, "set_per_process_memory_fraction", None)
        if limit is not None and fraction is not None:
            fraction(min(1.0, limit / self.total_memory()), self.device)

    def reserved_peak(self) -> int | None:
        return int(torch.accelerator.max_memory_reserved(self.device))

    def reset_peak(self) -> int:
        """Reset the peaks; returns the bytes of tensors now."""
        torch.accelerator.reset_peak_memory_stats(self.device)
        return int(torch.accelerator.memory_allocated(self.device))

    def allocated_peak(self) -> int:
        """The most bytes that tensors took."""
        return int(torch.accelerator.max_memory_allocated(self.device))

    def process_memory(self) -> int | None:
        return None

    def context_size(self) -> int | None:
        """Bytes of the device's memory that this process holds besides tensors; None if not measurable."""
        torch.zeros(1, device=self.device)  # its first use makes the context
        size = getattr(self._module, "context_size", None)
        return int(size(self.device)) if size else None

    def generators(self) -> Sequence[torch.Generator]:
        return tuple(self._module.default_generators)

    def generator(self) -> torch.Generator:
        self._module.init()
        found: torch.Generator = self._module.default_generators[self.device.index]
        return found

    def pinned(self, size: int) -> torch.Tensor:
        """Bytes of pinned RAM, which the device copies from by itself.

        If its runtime cannot register memory, torch's allocator pins it, and may take up to twice as much.

        Raises:
            MemoryError: the RAM cannot be pinned.

        """
        functions = self._register_functions()
        memory = registered(size, *functions, self.synchronize) if functions else None
        if memory is not None:
            return memory
        try:
            return torch.empty(size, dtype=torch.uint8, pin_memory=True)
        except RuntimeError as error:
            raise MemoryError(f"{size} bytes of RAM cannot be pinned for {self.device}: {error}") from error

    def _register_functions(self) -> tuple[Callable[[int, int], int], Callable[[int], int]] | None:
        """Functions of the device's runtime that pin and unpin memory; None where it has none."""
        module = self._module
        if getattr(module, "host_register", None) is None:
            return None
        return module.host_register, module.host_unregister

    def is_lost(self, error: BaseException) -> bool:
        if is_out_of_memory(error):
            return False
        if isinstance(error, torch.AcceleratorError):
            return True
        if not isinstance(error, RuntimeError):
            return False
        try:  # a library's error may follow from a device error that is not reported yet
            self.synchronize()
        except torch.AcceleratorError:
            return True
        return False
