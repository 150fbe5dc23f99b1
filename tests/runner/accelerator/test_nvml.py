"""NVIDIA's cards, read from a driver's library that this builds: its functions, without a card."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

GIB = 1 << 30
RESERVED = GIB // 2
ASK = """
import json, sys
from dataclasses import asdict
from runner.accelerator import nvml
devices, reason = nvml.devices()
held = nvml.process_memory(sys.argv[1], 4711)
print(json.dumps({"devices": [asdict(d) for d in devices], "reason": reason, "held": held}))
"""


@pytest.fixture(scope="session")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    if shutil.which("g++") is None:
        pytest.skip("there is no g++ to build the driver's library with")
    folder = tmp_path_factory.mktemp("driver")
    source = Path(__file__).with_name("nvml.cpp")
    command = ["g++", "-shared", "-fPIC", "-o", str(folder / "libnvidia-ml.so.1"), str(source)]
    subprocess.run(command, check=True)

    def call(cards: str | None, card: str = "GPU-00000000", **variables: str) -> dict[str, Any]:
        environment = {**os.environ, "LD_LIBRARY_PATH": str(folder), **variables}
        environment.pop("CUDA_VISIBLE_DEVICES", None) if "CUDA_VISIBLE_DEVICES" not in variables else None
        if cards is not None:
            environment["NVML_CARDS"] = cards
        done = subprocess.run(
            [sys.executable, "-c", ASK, card], env=environment, capture_output=True, check=True, text=True
        )
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    return call


def names(found: dict[str, Any]) -> list[str]:
    return [device["name"] for device in found["devices"]]


def test_cards_in_the_order_of_the_bus(ask: Callable[..., dict[str, Any]]) -> None:
    found = ask("T4:16 A100:80")
    assert names(found) == ["T4", "A100"]
    assert [device["index"] for device in found["devices"]] == [0, 1]
    assert [device["memory"] for device in found["devices"]] == [16 * GIB - RESERVED, 80 * GIB - RESERVED]
    assert [device["uuid"] for device in found["devices"]] == ["GPU-00000000", "GPU-10000000"]
    assert {device["kind"] for device in found["devices"]} == {"cuda"}


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("1,0", ["A100", "T4"]),
        ("1", ["A100"]),
        ("GPU-1", ["A100"]),
        ("1,7,0", ["A100"]),
        ("GPU-", []),
        ("1,1", ["A100"]),
        ("", []),
        ("-1", []),
    ],
)
def test_cards_that_a_program_may_see(
    ask: Callable[..., dict[str, Any]], visible: str, expected: list[str]
) -> None:
    found = ask("T4:16 A100:80", CUDA_VISIBLE_DEVICES=visible)
    assert names(found) == expected
    assert bool(found["reason"]) == (not expected)


def test_of_a_partitioned_card_one_partition_is_seen(ask: Callable[..., dict[str, Any]]) -> None:
    assert [d["uuid"] for d in ask("A100:80/10/20")["devices"]] == ["MIG-01000000"]
    chosen = ask("A100:80/10/20", CUDA_VISIBLE_DEVICES="MIG-02000000")["devices"]
    assert [(d["uuid"], d["memory"]) for d in chosen] == [("MIG-02000000", 20 * GIB - RESERVED)]


def test_what_a_process_holds(ask: Callable[..., dict[str, Any]]) -> None:
    assert ask("T4:16", NVML_PROCESS="4711 123456")["held"] == 123456
    assert ask("T4:16", NVML_PROCESS="4712 123456")["held"] is None  # another process
    assert ask("T4:16")["held"] is None
    assert ask("T4:16", card="GPU-9", NVML_PROCESS="4711 123456")["held"] is None


def test_without_a_driver(ask: Callable[..., dict[str, Any]]) -> None:
    found = ask(None)
    assert (found["devices"], found["held"]) == ([], None)
    assert "Driver Not Loaded" in found["reason"]
