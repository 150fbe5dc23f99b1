"""Measuring and caching speeds; no test depends on how fast this machine is."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from runner.machine import rates
from runner.machine.rates import cached_device, cached_disk, measure_device, measure_disk, nearest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MIB = 1 << 20
linux = pytest.mark.skipif(sys.platform != "linux", reason="the page cache can be passed by on Linux only")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RUNNER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(rates, "_SIZE", 32 * MIB)
    place = tmp_path / "models"
    place.mkdir()
    return place


@linux
def test_what_is_measured_is_kept_and_nothing_else_stays(folder: Path) -> None:
    assert cached_disk(folder) is None
    measured = measure_disk(folder)
    assert measured is not None
    assert measured > 0
    assert cached_disk(folder) == measured
    assert list(folder.iterdir()) == []


@linux
def test_a_folder_that_is_not_there_is_on_the_disk_of_its_parent(folder: Path) -> None:
    measured = measure_disk(folder / "hub/models")
    assert list(folder.iterdir()) == []
    assert nearest(folder / "hub/models") == folder
    assert cached_disk(folder / "other") == measured


def refuse(_: int) -> None:
    raise OSError(22, "Invalid argument")


def refuse_reads(descriptor: int) -> None:
    real = os.preadv

    def preadv(*arguments: Any) -> int:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(22, "Invalid argument")
        return real(*arguments)

    os.preadv = preadv


@linux
@pytest.mark.parametrize("refusal", [refuse, refuse_reads])
def test_where_direct_reads_are_refused_it_reads_through_the_page_cache(
    folder: Path, monkeypatch: pytest.MonkeyPatch, refusal: Callable[[int], None]
) -> None:
    real = fcntl.fcntl
    monkeypatch.setattr(os, "preadv", os.preadv)  # put back at the end
    refused = []

    def control(descriptor: int, command: int, *argument: int) -> int:
        if command == fcntl.F_SETFL and argument[0] & os.O_DIRECT:
            refused.append(descriptor)
            refusal(descriptor)
        return real(descriptor, command, *argument)

    monkeypatch.setattr(fcntl, "fcntl", control)
    assert measure_disk(folder) is not None
    assert refused


def test_a_full_disk_is_left_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10 * MIB))
    monkeypatch.setattr(rates, "_write", lambda _: pytest.fail("it wrote"))
    assert measure_disk(folder) is None
    assert cached_disk(folder) is None, "it may have room the next time"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(folder: Path) -> None:
    folder.chmod(0o500)
    assert measure_disk(folder) is None


@pytest.mark.parametrize("text", ["", "[]", '{"HERE": -7.0}', '{"HERE": {"disk_read": "fast"}}', "\x00"])
def test_a_cache_that_is_no_good_is_as_none(folder: Path, text: str) -> None:
    cache = folder.parent / "cache/rates.json"
    cache.parent.mkdir()
    cache.write_text(text.replace("HERE", rates._key(folder)))
    assert cached_disk(folder) is None


@linux
def test_the_cache_keeps_other_hosts_and_disks(folder: Path) -> None:
    cache = folder.parent / "cache/rates.json"
    cache.parent.mkdir()
    cache.write_text(json.dumps({"elsewhere:1": 1.0}))
    measured = measure_disk(folder)
    assert json.loads(cache.read_text())["elsewhere:1"] == 1.0
    assert cached_disk(folder) == measured


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(folder: Path) -> None:
    (folder.parent / "cache").write_text("a file where the folder should be")
    assert measure_disk(folder) is not None
    assert cached_disk(folder) is None


def test_the_cpu_is_measured_in_a_process_of_its_own_and_kept(folder: Path) -> None:
    assert cached_device("cpu") is None
    measured = measure_device("cpu")
    assert measured is not None
    assert {*measured.compute} == {"float32", "bfloat16", "float16"}
    assert min(measured.compute.values()) > 0
    assert measured.bus is None
    assert cached_device("cpu") == measured
    assert list(folder.iterdir()) == []


def test_a_device_that_is_not_there_has_no_rates(folder: Path) -> None:
    assert measure_device("cuda:77") is None
    assert cached_device("cuda:77") is None


@pytest.mark.parametrize(
    "cached", ["7.0", '{"compute": {"float32": "fast"}, "bus": null}', '{"compute": 1.0}']
)
def test_malformed_rates_of_a_device_count_as_none(folder: Path, cached: str) -> None:
    cache = folder.parent / "cache/rates.json"
    cache.parent.mkdir()
    cache.write_text(f'{{"{rates.device_key("cpu")}": {cached}}}')
    assert cached_device("cpu") is None
