"""How workers are started: one fork server for a number of threads, and another when it has ended."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from sim.forked import FOLDER

from runner.api import Stage
from runner.rundir.directory import RunDirectory
from runner.supervisor.processes import forked, launch
from runner.supervisor.processes.forked import ForkServer
from runner.supervisor.processes.launch import Launchers
from runner.supervisor.processes.spawn import Spawner

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers that import nothing."""
    monkeypatch.setattr(forked, "ENGINE_PRELOAD", ())


@pytest.fixture
def launchers(tmp_path: Path) -> Iterator[Launchers]:
    pipeline: Any = SimpleNamespace(stages=[SimpleNamespace(spec=Stage("a.b", "a:start"))])
    with Launchers(pipeline, RunDirectory(tmp_path), ()) as made:
        yield made


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux alone")
def test_cpu_stages_of_as_many_threads_share_a_server(launchers: Launchers) -> None:
    first = launchers.get("cpu", 1)
    assert isinstance(first, ForkServer)
    assert launchers.get("cpu", 1) is first
    assert launchers.get("cpu", 2) is not first
    first._popen.kill()
    first._popen.wait()
    again = launchers.get("cpu", 1)
    assert again is not first
    assert again.usable


def test_accelerators_are_forked_to_until_a_fork_cannot_use_one(
    launchers: Launchers, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = launchers.get("cuda:0", 1)
    assert isinstance(server, ForkServer)
    assert launchers.get("cpu", 1) is server
    launchers.spawn_only("cuda:0")
    assert isinstance(launchers.get("cuda:0", 1), Spawner)
    assert launchers.get("cuda:1", 1) is server
    monkeypatch.setattr(launch, "CAN_FORK", False)
    assert isinstance(launchers.get("cpu", 4), Spawner)


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux alone")
def test_nothing_is_left_running(tmp_path: Path) -> None:
    pipeline: Any = SimpleNamespace(stages=[])
    with Launchers(pipeline, RunDirectory(tmp_path), ()) as made:
        server = made.get("cpu", 1)
        assert isinstance(server, ForkServer)
    assert server._popen.poll() is not None


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux alone")
@pytest.mark.parametrize("touches", [False, True])
def test_a_server_whose_imports_used_a_device_is_not_forked_from(
    built_simulation: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, touches: bool
) -> None:
    used = "torch.ones(1, device='sim')\n" if touches else ""
    (tmp_path / "at_import.py").write_text(f"import torch\nimport torch_sim\n{used}")
    for place in (tmp_path, FOLDER):
        monkeypatch.syspath_prepend(str(place))
    server = ForkServer(["at_import", "runner.accelerator.backends"], 1, tmp_path / "server.log")
    try:
        process = server.start(tmp_path / "worker.log")
        assert (psutil.Process(process.pid).ppid() == os.getpid()) == touches
        process.kill()
        process.wait(10)
        process.commands.close()
        process.events.close()
    finally:
        server.close()
