"""The machine and the installed software, as logs record them."""

from __future__ import annotations

import os
import platform
from importlib import metadata

from runner.accelerator.discovery import accelerators
from runner.machine.describe import Machine, describe_machine, installed_versions, installed_with
from runner.machine.ram import usable_ram


def test_this_machine() -> None:
    here = Machine.here()
    assert 1 <= here.cores <= (os.cpu_count() or 1)
    assert here.usable_ram == usable_ram()
    assert here.accelerators == accelerators()


def test_without_accelerators_their_driver_is_not_started() -> None:
    found = describe_machine(with_accelerators=False)
    assert found["accelerators"] == []
    assert found["cpu"]
    assert (found["cores"], found["ram"]) == (Machine.here().cores, Machine.here().usable_ram)


def test_versions_of_what_is_installed() -> None:
    found = installed_versions("runner-flux")
    assert found["python"] == platform.python_version()
    assert found["runner-flux"] == metadata.version("runner-flux")
    assert found["torch"] == metadata.version("torch")
    assert "no-such-plugin" not in installed_versions("no-such-plugin")
    assert installed_with(["no-such-plugin", "runner-flux"]) == found
