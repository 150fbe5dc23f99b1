"""The shipped manifests: each fits the hardware that it is for, and takes what its comments say."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from family_manifests import FILES, MODELS
from large import make_full_flux
from published_families import published

from runner.units import format_size

if TYPE_CHECKING:
    from project import Project

ROOT = Path(__file__).parents[1]
MANIFESTS = ROOT / "manifests"
FLUX = sorted(path.name for path in MANIFESTS.glob("flux_*.toml"))


@pytest.fixture(scope="module")
def flux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FLUX.1-dev's shapes, in files that take no room."""
    return make_full_flux(tmp_path_factory.mktemp("published") / "flux")


@pytest.mark.parametrize("name", FLUX)
def test_it_fits_and_takes_what_it_says(project: Project, flux: Path, name: str) -> None:
    text = (MANIFESTS / name).read_text()
    project.write(name, text)
    # the card need not be here, and then the budget alone counts
    device = ["--set", "budget.device=cuda"] if "\nvram = " in text else []
    outcome = project.invoke("plan", name, "--json", "--set", f"model.source={flux}", *device)
    assert outcome.code == 0, outcome
    stages = json.loads(outcome.stdout)["stages"]
    assert [stage["stage"] for stage in stages] == ["encode", "diffuse", "decode"]
    for stage in stages:
        assert stage["fits"]
        if device and "# predicted" in text:
            peaks = [f"{kind.upper()} {format_size(size)}" for kind, size in stage["predicted"].items()]
            assert (
                f'# predicted: {", ".join([stage["placement"], *peaks])}\nname = "{stage["stage"]}"' in text
            )


@pytest.mark.parametrize("name", FILES)
def test_that_of_a_family_is_valid_for_its_model(project: Project, name: str) -> None:
    """Its peaks are compared by `make manifests`, since measuring them takes minutes."""
    text = (MANIFESTS / FILES[name]).read_text()
    assert f'source = "{MODELS[name]}"' in text
    assert len(re.findall(r"^# predicted: .*, VRAM .*, RAM [0-9.]+ [GM]iB$", text, re.MULTILINE)) == 3
    project.write(FILES[name], text)
    shutil.copy(MANIFESTS / "picture.png", project.folder)
    outcome = project.invoke("validate", FILES[name], "--set", f"model.source={published(name)}")
    assert outcome.code == 0, outcome
    assert f"[{FILES[name]}](../manifests/{FILES[name]})" in (ROOT / "docs/models.md").read_text()


def test_a_plan_of_the_published_shapes_is_quick_and_exact(project: Project, flux: Path) -> None:
    project.write("flux.toml", (MANIFESTS / "flux_8gb.toml").read_text())
    arguments = (
        "plan",
        "flux.toml",
        "--json",
        "--set",
        f"model.source={flux}",
        "--set",
        "budget.device=cuda",
    )
    outcome = project.runner(*arguments)
    assert outcome.code == 0, outcome
    diffuse = json.loads(outcome.stdout)["stages"][1]
    (transformer,) = diffuse["components"]
    assert transformer["parameters"] == 11_901_408_320
    assert transformer["bytes"] == transformer["loaded"] == 2 * 11_901_408_320
    assert transformer["blocks"] == 19 + 38
    assert transformer["resident"] + transformer["moved"] == transformer["loaded"]
    assert sum(diffuse["parts"]["vram"].values()) == diffuse["predicted"]["vram"] <= 8 << 30
    assert sum(diffuse["parts"]["ram"].values()) == diffuse["predicted"]["ram"] <= 30 << 30
