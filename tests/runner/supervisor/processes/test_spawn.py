"""Worker processes: the job's outcome as exit code and last event, their surroundings, their end."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import pytest
from worker_job import STAGE, item_of, job_of

from runner.api import Stage
from runner.errors import ExitCode, StorageError, WorkerDiedError
from runner.events import encode
from runner.machine import malloc
from runner.machine.interpreter import environment
from runner.supervisor.processes import forked
from runner.supervisor.processes.connection import WorkerConnection
from runner.supervisor.processes.forked import ForkServer
from runner.supervisor.processes.spawn import Spawner

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runner.protocol import Job
    from runner.supervisor.processes.spawn import Process

ENDINGS = """
import ctypes, os, pathlib, sys
from runner.errors import StorageError

def start_storage(ctx): raise StorageError("cannot write it")
def start_memory(ctx): raise MemoryError("7 bytes")
def start_exit(ctx): sys.exit(3)
def start_error(ctx): raise KeyError("k")
def start_well(ctx):
    print("to the log")
    return lambda item: {"x": ctx_tensor()}
def ctx_tensor():
    import torch
    return torch.ones(1)
def start_tell(ctx):
    names = ("HF_TOKEN", "HF_HUB_OFFLINE", "OMP_NUM_THREADS", "MALLOC_MMAP_THRESHOLD_", "OTHER")
    def one(item):
        item.warn("reported", "m", environment={n: os.environ.get(n) for n in names}, group=os.getpgid(0), pid=os.getpid())
        return {"x": ctx_tensor()}
    return one
"""


@pytest.fixture(scope="module")
def endings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A plugin whose stages end in each way."""
    folder = tmp_path_factory.mktemp("endings")
    (folder / "endings.py").write_text(ENDINGS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield folder


@pytest.fixture(scope="module")
def server(endings: Path) -> Iterator[ForkServer]:
    """A fork server; one of its preloads cannot be imported, and fails again where it is needed."""
    made = ForkServer(["endings", "not_there_at_all"], 1, endings / "logs/server.log")
    yield made
    made.close()


def job(folder: Path, start: str) -> Job:
    stage = Stage("endings.stage", f"endings:{start}", outputs=STAGE.outputs)
    return job_of([item_of(folder, "a")], stage=stage)


def ended(folder: Path, process: Process, start: str) -> tuple[int | None, list[dict[str, Any]]]:
    connection = WorkerConnection(process, job(folder, start))
    events = [encode(event) for event in connection.events() if event is not None]
    return connection.exit_code, events


on_linux = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux alone")


@on_linux
@pytest.mark.parametrize(
    ("start", "code", "reported"),
    [
        ("start_storage", ExitCode.STORAGE, {"code": 9, "error": "cannot write it"}),
        (
            "start_memory",
            ExitCode.BUDGET,
            {"code": 5, "error": "out of memory: 7 bytes", "out_of_memory": True},
        ),
        ("start_error", ExitCode.STAGE, {"code": 7, "error": "KeyError: 'k'"}),
        ("start_exit", ExitCode.STAGE, {"code": 7, "error": "SystemExit: 3"}),
    ],
)
def test_a_stage_that_cannot_go_on_says_why(
    server: ForkServer, endings: Path, start: str, code: ExitCode, reported: dict[str, Any]
) -> None:
    log = endings / f"logs/{start}.log"
    exit_code, events = ended(endings, server.start(log), start)
    last = events[-1]
    assert (exit_code, last["event"]) == (code, "failed")
    assert reported.items() <= last.items()
    if start == "start_memory":
        assert last["ram"] > 1 << 20
    if start == "start_error":
        assert "Traceback" in log.read_text()


def test_a_worker_has_surroundings_of_its_own(endings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("OTHER", "kept")
    exit_code, events = ended(endings, Spawner(2).start(endings / "logs/worker.log"), "start_tell")
    assert exit_code == 0
    (reported,) = [event["details"] for event in events if event["event"] == "warning"]
    assert reported["environment"] == {
        "HF_TOKEN": None,
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "2",
        "MALLOC_MMAP_THRESHOLD_": malloc.ENVIRONMENT["MALLOC_MMAP_THRESHOLD_"],
        "OTHER": "kept",
    }
    # so that a Ctrl-C in the terminal is not the worker's, and what it starts can be ended with it
    assert reported["group"] == reported["pid"] != os.getpgid(0)


def test_the_search_path_is_the_supervisors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    assert environment(1)["PYTHONPATH"].split(os.pathsep)[0] == str(tmp_path)
    monkeypatch.setattr(sys, "argv", [f"{tmp_path}/runner"])
    assert str(tmp_path) not in environment(1)["PYTHONPATH"].split(os.pathsep)


def test_a_log_that_cannot_be_written_is_storages_fault(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("in the way")
    with pytest.raises(StorageError):
        Spawner(1).start(tmp_path / "logs/worker.log")


@on_linux
def test_forked_workers_do_their_jobs_and_their_end_is_seen(server: ForkServer, endings: Path) -> None:
    log = endings / "logs/forked.log"
    exit_code, events = ended(endings, server.start(log), "start_well")
    assert (exit_code, events[-1]["event"]) == (0, "finished")
    assert "to the log" in log.read_text()
    killed = server.start(log)
    assert killed.poll() is None
    killed.kill()
    assert killed.wait(30) == -9
    close(killed)


@on_linux
def test_workers_end_with_their_server(endings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forked, "ENGINE_PRELOAD", ())
    server = ForkServer([], 1, endings / "logs/server.log")
    process = server.start(endings / "logs/forked.log")
    assert server.usable
    server._popen.kill()
    assert process.wait(30) == -9
    assert not server.usable
    with pytest.raises(WorkerDiedError, match="the fork server ended with exit code -9"):
        server.start(endings / "logs/forked.log")
    close(process)
    server.close()


@on_linux
def test_a_server_that_said_nothing_leaves_no_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forked, "ENGINE_PRELOAD", ())
    server = ForkServer([], 1, tmp_path / "logs/server.log")
    assert (tmp_path / "logs/server.log").exists()
    server._answer("threads")
    server.close()
    assert not (tmp_path / "logs/server.log").exists()
    assert not server.usable


def close(process: Process) -> None:
    process.commands.close()
    process.events.close()
