"""Which accelerators there are, found without torch in this process, and which one a budget means."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runner.accelerator import discovery
from runner.accelerator.device import Device
from runner.accelerator.discovery import accelerators, choose_device, find, forget
from runner.errors import BudgetError

if TYPE_CHECKING:
    from project import Project

GIB = 1 << 30
CARDS = (
    Device("cuda", 0, "Card A", 8 * GIB),
    Device("cuda", 1, "Card B", 8 * GIB),
    Device("xpu", 0, "X", GIB),
)


@pytest.mark.parametrize(
    ("device", "vram", "expected"),
    [
        ("cpu", None, "cpu"),
        ("auto", None, "cuda:0"),
        ("auto", GIB, "cuda:0"),
        ("cuda", None, "cuda:0"),
        ("cuda:1", None, "cuda:1"),
        ("xpu", None, "xpu:0"),
    ],
)
def test_the_device_of_a_budget(device: str, vram: int | None, expected: str) -> None:
    assert choose_device(device, vram=vram, found=CARDS) == expected


def test_without_an_accelerator_auto_is_the_cpu_unless_there_is_vram_to_spend() -> None:
    assert choose_device("auto", vram=None, found=()) == "cpu"
    with pytest.raises(BudgetError, match=r"no accelerator .*--set budget.device=cpu"):
        choose_device("auto", vram=GIB, found=())


@pytest.mark.parametrize(
    ("device", "message"),
    [("cuda:2", "this machine has cuda:0, cuda:1"), ("mps", "none of that kind"), ("xpu:1", "xpu:0")],
)
def test_a_device_that_is_not_here(device: str, message: str) -> None:
    with pytest.raises(BudgetError, match=message):
        choose_device(device, vram=None, found=CARDS)


def test_the_simulated_accelerator_is_there_only_if_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUNNER_ACCELERATOR", raising=False)
    assert all(device.kind != "sim" for device in accelerators())
    assert "RUNNER_ACCELERATOR=sim" in find("sim").reason
    monkeypatch.setenv("RUNNER_ACCELERATOR", "gpu")
    with pytest.raises(BudgetError, match="RUNNER_ACCELERATOR=gpu: no such kind"):
        accelerators()


def test_torch_is_asked_once_after_a_start_of_the_machine(
    sim: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    sim.environment["SIM_MEMORY"] = str(3 * GIB)
    with sim.as_environment():
        for name, value in sim.environment.items():
            monkeypatch.setenv(name, value)
        forget()
        found = accelerators()
        assert [(device.id, device.memory, device.context) for device in found] == [
            ("sim:0", 3 * GIB, 0),
            ("sim:1", 3 * GIB, 0),
        ]
        monkeypatch.setattr(discovery, "PATIENCE", 0.0)  # asking again would fail
        discovery._find.cache_clear()
        assert accelerators() == found
        cached = sim.folder / "cache/accelerators.json"
        written = cached.read_text()
        cached.write_text(written.replace('"memory"', '"size"'))  # as another version might
        discovery._find.cache_clear()
        assert accelerators() == ()
        cached.write_text(written)
        monkeypatch.setenv("SIM_MEMORY", str(2 * GIB))
        assert accelerators() == (), "other devices"
        monkeypatch.setenv("SIM_MEMORY", str(3 * GIB))
        forget()
        assert accelerators() == ()
        assert find("sim").reason
    forget()
