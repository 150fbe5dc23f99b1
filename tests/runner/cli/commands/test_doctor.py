"""What `runner doctor` reports of machines in several states of health."""

# mypy: disable-error-code="attr-defined"

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import huggingface_hub.constants
import pytest

from runner.accelerator.device import Device
from runner.cli import diagnosis
from runner.machine import rates
from runner.machine.describe import Machine

if TYPE_CHECKING:
    from project import Outcome, Project

GIB = 1 << 30
MACHINE = Machine(cores=4, total_ram=16 * GIB)


@pytest.fixture(autouse=True)
def small(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Little is measured, and in the test's own folder."""
    monkeypatch.setattr(rates, "_SIZE", 16 << 20)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(project.folder / "hub/hub"))


def checks(outcome: Outcome) -> dict[str, dict[str, Any]]:
    """The checks of ``--json`` by name; the last plugin's, of several."""
    assert outcome.stderr == ""
    return {check["name"]: check for check in json.loads(outcome.stdout)["checks"]}


def test_every_part_of_the_machine_is_reported(toy: Project) -> None:
    before = toy.files()
    outcome = toy.invoke("doctor")
    assert outcome.code == 0, outcome
    for part in ("cpu", "accelerator", "ram", "ram budget", "models", "runs", "versions", "torch", "plugin"):
        assert f" {part} " in outcome.stdout, part
    assert "toy (toy-plugin 1.0): toy." in outcome.stdout
    assert str(toy.folder / "hub/hub") in outcome.stdout
    assert toy.files() == before
    assert not (toy.folder / "hub").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="disks are measured on Linux only")
def test_json_is_one_object_and_the_measurement_is_kept_for_later(project: Project) -> None:
    found = checks(project.invoke("doctor", "--json"))
    assert {check["status"] for check in found.values()} <= {"ok", "warn"}
    speed = found["models"]["read_bytes_per_second"]
    assert speed > 0
    assert found["runs"]["read_bytes_per_second"] == speed, "one disk is measured once"
    assert found["models"]["free"] > 0
    assert 0 < found["ram"]["usable"] <= found["ram"]["total"]
    assert found["versions"]["versions"]["torch"]
    assert all(check["told"] == check["message"] for check in found.values()), "its name in earlier versions"
    again = checks(project.invoke("doctor", "--json", "--no-measure"))
    assert again["models"]["read_bytes_per_second"] == speed
    assert "when last measured" in again["models"]["message"]


def test_a_busy_machine_is_reported_and_what_a_calm_one_measured_stays(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm = {"float32": 1e15, "bfloat16": 1e15, "float16": 1e15}
    with project.as_environment():
        rates.keep(rates.device_key("cpu"), {"compute": calm, "bus": None})
    monkeypatch.setattr("os.getloadavg", lambda: (99.0, 99.0, 99.0))
    monkeypatch.setattr(rates, "measure_disk", lambda _, *, busy: 1e9 if busy else None)
    found = checks(project.invoke("doctor", "--json"))
    assert found["load"]["status"] == "warn"
    assert "99.0 on " in found["load"]["message"]
    with project.as_environment():
        kept = rates.cached_device("cpu")
        assert kept is not None
        assert (kept.compute, kept.busy) == (calm, False)
        monkeypatch.setattr("os.getloadavg", lambda: (0.0, 0.0, 0.0))
        measured = rates.measure_device("cpu", busy=rates.is_busy())
        assert rates.cached_device("cpu") == measured != kept


def test_without_the_disk_nothing_is_written(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "measure_disk", lambda _, **_busy: pytest.fail("it measured"))
    before = {*project.folder.rglob("*")}
    outcome = project.invoke("doctor", "--no-measure", "--json")
    assert outcome.code == 0
    assert checks(outcome)["models"]["read_bytes_per_second"] is None
    assert {*project.folder.rglob("*")} == before


def test_a_broken_plugin_is_exit_4_with_its_reason_and_what_to_do(toy: Project) -> None:
    toy.plugin("torn", "import a_module_that_nobody_has\n")
    outcome = toy.invoke("doctor", "--no-measure", "--json")
    assert outcome.code == 4
    report = json.loads(outcome.stdout)
    assert (report["ok"], report["exit_code"]) == (False, 4)
    broken = [check for check in report["checks"] if check["status"] == "broken"]
    assert [check["plugin"] for check in broken] == ["torn"]
    assert "No module named 'a_module_that_nobody_has'" in broken[0]["reason"]
    assert "pip uninstall torn-plugin" in broken[0]["advice"]
    shown = toy.invoke("doctor", "--no-measure")
    assert shown.code == 4
    assert "1 broken plugin" in shown.stdout
    assert "a_module_that_nobody_has" in shown.stdout


def test_no_accelerator_is_a_warning(project: Project) -> None:
    found = checks(project.invoke("doctor", "--no-measure", "--json", machine=MACHINE))
    assert found["accelerator"]["status"] == "warn"
    assert "none" in found["accelerator"]["message"]
    assert "driver" in found["accelerator"]["advice"]


@pytest.mark.parametrize(
    ("line", "status", "message"),
    [
        ("cuda: Optional[str] = None\nhip: Optional[str] = None\n", "warn", "built for the CPU only"),
        ("cuda: Optional[str] = '12.8'\nhip: Optional[str] = None\n", "ok", "built for CUDA 12.8"),
        ("cuda = None\nhip = '6.4'\n", "ok", "built for ROCm 6.4"),
    ],
)
def test_an_accelerator_needs_a_torch_that_was_built_for_it(
    project: Project, line: str, status: str, message: str
) -> None:
    machine = replace(MACHINE, accelerators=(Device("cuda", 0, "Card 8", 8 * GIB),))
    project.write(
        "packages/torch-9.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: torch\nVersion: 9.0\n"
    )
    project.write("packages/torch/version.py", line)
    found = checks(project.invoke("doctor", "--no-measure", "--json", machine=machine))
    assert found["accelerator"]["message"] == "cuda:0, Card 8, 8.00 GiB"
    assert found["versions"]["versions"]["torch"] == "9.0"
    assert (found["torch"]["status"], found["torch"]["message"]) == (status, message)


def test_where_no_cgroup_can_be_made_it_says_how_to_get_one(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagnosis.MemoryGroup, "make", lambda _: None)
    budget = checks(project.invoke("doctor", "--no-measure", "--json"))["ram budget"]
    assert budget["cgroup"] is False
    assert "watchdog" in budget["message"]
    if sys.platform == "linux":
        assert budget["status"] == "warn"
        assert "systemd-run" in budget["advice"]


def test_a_container_limit_is_what_may_be_used(project: Project) -> None:
    limited = replace(MACHINE, container_limit=GIB)
    ram = checks(project.invoke("doctor", "--no-measure", "--json", machine=limited))["ram"]
    assert ram["container_limit"] == GIB
    assert "this process may use 1.00 GiB" in ram["message"]


def test_what_is_full_slow_or_small_comes_with_advice(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        diagnosis.shutil, "disk_usage", lambda _: SimpleNamespace(total=64 << 20, free=32 << 20)
    )
    monkeypatch.setattr(diagnosis.rates, "measure_disk", lambda _, **_busy: 0.1e9)
    found = checks(project.invoke("doctor", "--json"))
    for name, words in (("models", "HF_HOME"), ("runs", "make room")):
        assert found[name]["status"] == "warn"
        assert words in found[name]["advice"]
    assert "faster disk" in found["models"]["advice"]
    assert "faster disk" not in found["runs"]["advice"]
    if Path("/dev/shm").is_dir():
        assert "--shm-size" in found["shared memory"]["advice"]


def test_a_folder_that_may_not_be_written(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    found = checks(project.invoke("doctor", "--no-measure", "--json"))
    assert "set HF_HOME" in found["models"]["advice"]
    assert "--runs-dir" in found["runs"]["advice"]
    assert found["runs"]["writable"] is False


def test_a_library_that_is_absent(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "LIBRARIES", ("torch", "no-such-library"))
    versions = checks(project.invoke("doctor", "--no-measure", "--json"))["versions"]
    assert versions["absent"] == ["no-such-library"]
    assert "pip install no-such-library" in versions["advice"]


def test_it_imports_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom runner.cli import main\n"
        "try: main(['doctor', '--no-measure', '--json'])\nexcept SystemExit: pass\n"
        "print({'torch', 'numpy', 'diffusers', 'transformers'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stderr.strip() == "set()"
    assert len(done.stdout.splitlines()) == 1
