"""RAM of the machine, within a container's limit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psutil

from runner.machine.cgroup import Mounts
from runner.machine.ram import total_ram, usable_ram

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20


def test_total_ram_is_what_the_system_reports() -> None:
    assert total_ram() == psutil.virtual_memory().total


def test_usable_ram_is_the_machines_or_the_containers(tmp_path: Path) -> None:
    mounts = Mounts(2, tmp_path, tmp_path)
    assert usable_ram(mounts) == total_ram()
    (tmp_path / "memory.max").write_text(f"{600 * MIB}\n")
    assert usable_ram(mounts) == 600 * MIB
    (tmp_path / "memory.max").write_text(f"{total_ram() + MIB}\n")
    assert usable_ram(mounts) == total_ram()
