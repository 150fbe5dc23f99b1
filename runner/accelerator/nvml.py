"""NVIDIA's cards as their driver's management library (NVML) reports them: no CUDA context is made.

They are numbered in the order of the bus, as by ``nvidia-smi``. CUDA uses the same numbers in workers, which
are started with ``CUDA_DEVICE_ORDER=PCI_BUS_ID``.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pynvml as driver

from runner.accelerator.device import Device
from runner.accelerator.names import CUDA

if TYPE_CHECKING:
    from collections.abc import Iterator

VISIBLE = "CUDA_VISIBLE_DEVICES"


def devices() -> tuple[tuple[Device, ...], str]:
    """The cards that a CUDA program would see, and why there are none."""
    try:
        with _library():
            handles = _visible(list(_cards()), os.environ.get(VISIBLE))
            found = tuple(_describe(number, handle) for number, handle in enumerate(handles))
    except driver.NVMLError as error:
        return (), f"NVIDIA's driver: {error}"
    return found, "" if found else f"none is visible ({VISIBLE})"


def process_memory(uuid: str, pid: int) -> int | None:
    """Bytes of a card's memory that a process holds, including its context; None where it is not reported.

    Inside a container the driver may know the process by another number.
    """
    try:
        with _library():
            handle = driver.nvmlDeviceGetHandleByUUID(uuid)
            running = driver.nvmlDeviceGetComputeRunningProcesses(handle)
            return next((int(p.usedGpuMemory) for p in running if p.pid == pid and p.usedGpuMemory), None)
    except driver.NVMLError:
        return None


@contextmanager
def _library() -> Iterator[None]:
    driver.nvmlInit()
    try:
        yield
    finally:
        driver.nvmlShutdown()


def _cards() -> Iterator[list[Any]]:
    """Each card in the order of the bus: itself, or the partitions (MIG) of one that is partitioned."""
    for number in range(driver.nvmlDeviceGetCount()):
        card = driver.nvmlDeviceGetHandleByIndex(number)
        yield _partitions(card) or [card]


def _partitions(card: Any) -> list[Any]:
    try:
        current, _ = driver.nvmlDeviceGetMigMode(card)
    except driver.NVMLError:
        return []  # a card that cannot be partitioned
    if current != driver.NVML_DEVICE_MIG_ENABLE:
        return []
    found = []
    for number in range(driver.nvmlDeviceGetMaxMigDeviceCount(card)):
        try:
            found.append(driver.nvmlDeviceGetMigDeviceHandleByIndex(card, number))
        except driver.NVMLError_NotFound:
            continue
    return found


def _visible(cards: list[list[Any]], wanted: str | None) -> list[Any]:
    """Those that ``CUDA_VISIBLE_DEVICES`` names, in its order, up to the first that is not there.

    Of partitions, a CUDA program sees one: the first, unless another one is named.
    """
    if wanted is None:
        partitions = [handle for card in cards for handle in card if _uuid(handle).startswith("MIG-")]
        return partitions[:1] or [card[0] for card in cards]
    found: list[Any] = []
    for name in (part.strip() for part in wanted.split(",")):
        if name.isdecimal():
            matching = [cards[int(name)][0]] if int(name) < len(cards) else []
        else:
            matching = [
                handle for card in cards for handle in card if name and _uuid(handle).startswith(name)
            ]
        if len(matching) != 1 or matching[0] in found:
            break
        found += matching
    return found


def _describe(number: int, handle: Any) -> Device:
    memory = driver.nvmlDeviceGetMemoryInfo(handle, version=driver.nvmlMemory_v2)
    return Device(
        CUDA, number, str(driver.nvmlDeviceGetName(handle)), memory.total - memory.reserved, _uuid(handle)
    )


def _uuid(handle: Any) -> str:
    return str(driver.nvmlDeviceGetUUID(handle))
