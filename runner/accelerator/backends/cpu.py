"""The CPU as a device: there is nothing to wait for, to pin or to limit."""

from __future__ import annotations

import torch

from runner.accelerator.backends.base import Backend


class CpuBackend(Backend):
    """The CPU. Its memory is RAM, which the supervisor measures and limits."""

    tokens_to_measure = 64

    def name(self) -> str:
        return f"cpu {torch.backends.cpu.get_cpu_capability()}"

    def check(self) -> None:
        pass

    def survives_fork(self) -> bool:
        return True

    def make_current(self) -> None:
        pass

    def synchronize(self) -> None:
        pass

    def limit_memory(self, limit: int | None) -> None:
        pass

    def reserved_peak(self) -> None:
        return None

    def process_memory(self) -> None:
        return None

    def generators(self) -> tuple[torch.Generator, ...]:
        return ()

    def generator(self) -> None:
        return None

    def is_lost(self, error: BaseException) -> bool:
        del error
        return False
