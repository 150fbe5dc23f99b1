"""What a stage may take: its budget, and no more than the machine has."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hand_built import MIB

from runner.accelerator.device import Device
from runner.machine.describe import Machine
from runner.machine.rates import DeviceRates
from runner.manifest.schema import Budget
from runner.plan import limits as limits_module
from runner.plan.limits import BUS_SPEED, DISK_SPEED, SPARE, Limits, limits_alone, limits_of

MACHINE = Machine(
    cores=4, total_ram=10_000 * MIB + SPARE, accelerators=(Device("cuda", 0, "card", 8000 * MIB),)
)
"""Its workers may take 10000 MiB of RAM, and 8000 of its card."""


@pytest.fixture(autouse=True)
def measured(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The rates that were measured: none of the device or the disk, if a test sets none."""
    has: dict[str, Any] = {"device": None, "disk": None}
    monkeypatch.setattr(limits_module, "cached_device", lambda _: has["device"])
    monkeypatch.setattr(limits_module, "cached_disk", lambda _: has["disk"])
    return has


def budget(**fields: Any) -> Budget:
    return Budget.model_validate(fields)


def test_the_machine_is_the_limit_where_the_budget_is_not() -> None:
    found = limits_of(budget(device="cpu"), MACHINE)
    assert (found.vram, found.ram, found.on_cpu) == (None, 10_000 * MIB, True)
    assert "leaves 9.77 GiB of RAM to a worker" in found.notes[0]
    found = limits_of(budget(device="cpu", ram="4000MiB"), MACHINE)
    assert (found.ram, found.notes) == (4000 * MIB, ())
    found = limits_of(budget(device="cpu", ram="10000MiB"), MACHINE)
    assert (found.ram, found.notes) == (10_000 * MIB, ())
    found = limits_of(budget(device="cpu", ram="10001MiB"), MACHINE)
    assert (found.ram, len(found.notes)) == (10_000 * MIB, 1)


def test_so_is_the_card() -> None:
    found = limits_of(budget(ram="1GiB"), MACHINE)
    assert (found.device, found.vram) == ("cuda:0", 8000 * MIB)
    assert "the card has 7.81 GiB of VRAM" in found.notes[0]
    assert limits_of(budget(ram="1GiB", vram="8000MiB"), MACHINE).notes == ()
    assert limits_of(budget(ram="1GiB", vram="6000MiB"), MACHINE).vram == 6000 * MIB
    assert limits_of(budget(ram="1GiB", vram="8001MiB"), MACHINE).vram == 8000 * MIB
    assert limits_of(budget(device="cpu", vram="6000MiB"), MACHINE).vram is None


def test_a_card_that_is_not_here_is_planned_for_by_the_budget_alone() -> None:
    without = replace(MACHINE, accelerators=())
    found = limits_of(budget(device="cuda", vram="9000MiB", ram="90000MiB"), without)
    assert (found.device, found.vram, found.ram) == ("cuda", 9000 * MIB, 90_000 * MIB)
    assert "no such accelerator" in found.notes[0]


def test_rates_are_those_that_were_measured(measured: dict[str, Any]) -> None:
    before = limits_of(budget(device="cpu", threads=3), MACHINE)
    assert (before.disk_read, before.bus, before.cores) == (DISK_SPEED, BUS_SPEED, 3)
    measured["disk"], measured["device"] = 5e8, DeviceRates({"float32": 7.0}, 6e9)
    after = limits_of(budget(device="cpu", threads=3), MACHINE)
    assert (after.disk_read, after.bus, after.speed("float32")) == (5e8, 6e9, 21.0)


def test_speed() -> None:
    cpu = Limits("cpu", None, None, cores=4)
    assert cpu.speed("bfloat16") == cpu.speed("float32") == 4 * limits_module.CORE_SPEED
    known = replace(cpu, flags=("avx512_bf16",))
    assert known.speed("bfloat16") == 2 * known.speed("float32") == 8 * limits_module.CORE_SPEED
    assert replace(known, measured={"float32": 5.0}).speed("bfloat16") == 40.0
    assert replace(known, measured={"float32": 5.0, "bfloat16": 7.0}).speed("bfloat16") == 28.0
    card = Limits("cuda:0", None, None, cores=4)
    assert card.speed("float16") == 2 * card.speed("float32") == 2 * limits_module.CARD_SPEED


def test_a_plan_for_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits_module, "cached_device", lambda _: DeviceRates({"float32": 7.0}, None))
    monkeypatch.setattr(limits_module, "cpu_flags", lambda: frozenset({"amx_bf16"}))
    here = Limits("cpu", None, None, measured={"float32": 7.0}, flags=frozenset({"amx_bf16"}))
    assert limits_alone(budget(vram="4GiB", ram="5GiB")) == Limits("cuda", 4096 * MIB, 5120 * MIB)
    assert limits_alone(budget(ram="5GiB")) == replace(here, ram=5120 * MIB)
    assert limits_alone(budget(device="cpu", vram="4GiB")) == here
    assert limits_alone(budget(device="cuda")).device == "cuda"
