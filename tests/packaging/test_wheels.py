"""What is installed without a checkout: the distributions, as their wheels have it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from email import message_from_string
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import runner_diffusers
import runner_flux
import runner_ray

import runner

if TYPE_CHECKING:
    from email.message import Message

ROOT = Path(__file__).parents[2]
SOURCES = {
    "runner": ROOT,
    "runner_flux": ROOT / "plugins/flux",
    "runner_diffusers": ROOT / "plugins/diffusers",
    "runner_ray": ROOT / "plugins/ray",
}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, zipfile.ZipFile]:
    """The wheel of each package."""
    built = {}
    for package, source in SOURCES.items():
        folder = tmp_path_factory.mktemp(package)
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
        subprocess.run(command, cwd=source, check=True, capture_output=True, timeout=100)
        (wheel,) = folder.glob("*.whl")
        built[package] = zipfile.ZipFile(wheel)
    return built


def metadata(wheel: zipfile.ZipFile) -> Message:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return message_from_string(wheel.read(name).decode())


def test_the_version_is_the_packages_own(wheels: dict[str, zipfile.ZipFile]) -> None:
    assert metadata(wheels["runner"])["Version"] == runner.__version__
    assert metadata(wheels["runner_flux"])["Version"] == runner_flux.__version__
    assert metadata(wheels["runner_diffusers"])["Version"] == runner_diffusers.__version__
    assert metadata(wheels["runner_ray"])["Version"] == runner_ray.__version__


@pytest.mark.parametrize("package", SOURCES)
def test_it_says_that_it_is_typed(wheels: dict[str, zipfile.ZipFile], package: str) -> None:
    assert f"{package}/py.typed" in wheels[package].namelist()


@pytest.mark.parametrize("extra", ["flux", "diffusers", "ray"])
def test_the_extra_brings_the_plugin(wheels: dict[str, zipfile.ZipFile], extra: str) -> None:
    reported = metadata(wheels["runner"])
    assert extra in reported.get_all("Provides-Extra", [])
    (required,) = (
        line for line in reported.get_all("Requires-Dist", []) if line.startswith(f"runner-{extra}")
    )
    assert required.replace("'", '"').endswith(f'extra == "{extra}"')


def test_the_demos_manifest_comes_along(wheels: dict[str, zipfile.ZipFile]) -> None:
    assert wheels["runner_flux"].read("runner_flux/demo.toml") == (ROOT / "manifests/demo.toml").read_bytes()
    assert "runner_flux/demo/model_index.json" in wheels["runner_flux"].namelist()
