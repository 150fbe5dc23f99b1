"""What plans may count on of a machine."""

from __future__ import annotations

import pytest

from runner.machine.describe import Machine


@pytest.mark.parametrize(("limit", "usable"), [(None, 1000), (600, 600), (1400, 1000)])
def test_what_can_be_used_is_the_machines_or_the_containers(limit: int | None, usable: int) -> None:
    assert Machine(cores=1, total_ram=1000, container_limit=limit).usable_ram == usable


def test_this_machine_has_what_plans_need() -> None:
    here = Machine.here(with_accelerators=False)
    assert here.cores >= 1
    assert 0 < here.usable_ram <= here.total_ram
    assert here.accelerators == ()
