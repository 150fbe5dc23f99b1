"""`runner new`: manifests for given hardware, from plugins' templates, on FLUX.1-dev's published shapes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import tomli
from described import published
from hub import Hub, Repository
from large import make_full_flux

from runner.accelerator.device import Device
from runner.machine.describe import Machine
from runner.machine.rates import device_key, keep
from runner.units import format_size

if TYPE_CHECKING:
    from pathlib import Path

    from project import Outcome, Project

GIB = 1 << 30
LARGE = Machine(cores=8, total_ram=1 << 40)
"""A machine of 1 TiB without a card."""


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_full_flux(tmp_path_factory.mktemp("published") / "flux")


@pytest.fixture
def flux(project: Project, full: Path) -> Project:
    """A project with the model in ``./flux``."""
    (project.folder / "flux").symlink_to(full)
    return project


def plans(outcome: Outcome) -> list[dict[str, Any]]:
    stages: list[dict[str, Any]] = json.loads(outcome.stdout)["stages"]
    return stages


def predicted(stage: dict[str, Any]) -> str:
    peaks = [
        f"{kind.upper()} {format_size(size)}" for kind, size in stage["predicted"].items() if size is not None
    ]
    return ", ".join([f"# predicted: {stage['placement']}", *peaks])


@pytest.mark.parametrize(
    "hardware",
    [
        ["--vram", "6GiB", "--ram", "16GiB"],
        ["--vram", "8GiB", "--ram", "30GiB"],
        ["--vram", "12GiB", "--ram", "48GiB"],
        ["--vram", "24GiB", "--ram", "64GiB"],
        ["--vram", "24GiB", "--ram", "16GiB", "--device", "cuda:1"],
        ["--device", "cpu", "--ram", "16GiB"],
        ["--device", "cpu", "--ram", "64GiB"],
    ],
    ids=" ".join,
)
def test_what_is_written_loads_and_plans_to_the_figures_in_its_comments(
    flux: Project, hardware: list[str]
) -> None:
    made = flux.invoke("new", *hardware, "--model", "./flux", "-o", "my.toml")
    assert made.code == 0, made
    assert made.stdout == ""
    text = (flux.folder / "my.toml").read_text()
    assert flux.invoke("validate", "my.toml").code == 0
    planned = flux.invoke("plan", "my.toml", "--json", machine=LARGE)
    assert planned.code == 0, planned
    assert re.findall(r"# predicted:.*", text) == [predicted(stage) for stage in plans(planned)]
    options = dict(zip(hardware[::2], hardware[1::2], strict=True))
    table = tomli.loads(text)
    device = options.get("--device", "auto")
    vram = {"vram": options["--vram"]} if "--vram" in options else {}
    assert table["budget"] == {"device": device, **vram, "ram": options["--ram"]}
    assert (table["name"], table["model"]) == ("my", {"source": "./flux"})


def test_the_best_quality_that_has_room(flux: Project) -> None:
    table = tomli.loads(flux.invoke("new", "--vram", "8GiB", "--ram", "30GiB", "--model", "./flux").stdout)
    encode, diffuse, decode = table["stage"]
    assert (encode["dtype"], encode["save_dtype"], diffuse["dtype"]) == ("float32", "bfloat16", "bfloat16")
    assert (decode["dtype"], decode["with"]["tiling"], decode["placement"]) == ("bfloat16", "auto", "auto")


@pytest.mark.parametrize(
    ("bfloat16", "dtypes"),
    [(1e10, ["float32", "float32", "float32"]), (4e11, ["float32", "bfloat16", "bfloat16"])],
)
def test_a_cpu_computes_in_what_it_is_fast_in(flux: Project, bfloat16: float, dtypes: list[str]) -> None:
    """And a manifest for a card that goes to the CPU does."""
    with flux.as_environment():
        speeds = {"float32": 1e11, "bfloat16": bfloat16, "float16": bfloat16}
        keep(device_key("cpu"), {"compute": speeds, "bus": None})
    made = flux.invoke("new", "--device", "cpu", "--ram", "64GiB", "--model", "./flux")
    assert [stage["dtype"] for stage in tomli.loads(made.stdout)["stage"]] == dtypes, made
    slow = "bfloat16 computes slower on this CPU (float32 takes a tenth of the time); this costs: "
    assert made.stdout.count(slow) == dtypes.count("float32") - 1

    card = flux.invoke("new", "--vram", "8GiB", "--ram", "64GiB", "--model", "./flux", "-o", "card.toml")
    assert card.code == 0, card
    ported = flux.invoke("port", "card.toml", "--device", "cpu", "-o", "cpu.toml")
    assert ported.code == 0, ported
    written = tomli.loads((flux.folder / "cpu.toml").read_text())
    assert [stage["dtype"] for stage in written["stage"]] == dtypes

    flux.write("half.toml", made.stdout.replace('"float32"', '"bfloat16"').encode())
    planned = flux.invoke("plan", "half.toml", machine=LARGE)
    notes = re.findall(
        r"float32 would take .* of the time and [0-9.]+ GiB (?:more|less): this CPU is slow", planned.stdout
    )
    assert len(notes) == (3 if bfloat16 < speeds["float32"] else 0), planned


def test_what_does_not_fit_is_lowered_with_a_comment(flux: Project) -> None:
    made = flux.invoke("new", "--vram", "2.5GiB", "--ram", "64GiB", "--model", "./flux", "--json")
    assert made.code == 0, made
    report = json.loads(made.stdout)
    cost = "seams between tiles are blended, other pixels"
    expected = {"key": "stage.decode.with.tiling", "stage": "decode", "from": "auto", "to": 512, "cost": cost}
    assert report["changes"] == [expected]
    assert re.search(rf"\ntiling = 512 +# auto does not fit; this costs: {cost}\n", report["text"])
    assert report["stages"][2]["predicted"]["vram"] <= 2.5 * GIB


def test_the_header_says_what_it_is_for(flux: Project) -> None:
    made = flux.invoke("new", "--vram", "8GiB", "--ram", "30GiB", "--model", "./flux")
    assert made.code == 0, made
    assert made.stderr == ""
    head = made.stdout.split("\n\n")[0].splitlines()
    assert [line.split()[1] for line in head] == ["Purpose:", "Hardware:", "Command:", "Override:"]
    assert head[1] == "# Hardware:  a CUDA card with 8 GiB, 30 GiB of RAM."
    assert head[2] == "# Command:   runner run flux-8gb.toml"
    assert tomli.loads(made.stdout)["name"] == "flux-8gb"
    (flux.folder / "flux-8gb.toml").write_text(made.stdout)
    override = re.findall(r"--set \S+", head[3])[0].split()
    assert flux.invoke("validate", "flux-8gb.toml", *override).code == 0


def test_a_model_folder_is_named_as_seen_from_the_manifest(flux: Project) -> None:
    made = flux.invoke("new", "--vram", "8GiB", "--ram", "30GiB", "--model", "./flux", "-o", "a/b/c d.toml")
    assert made.code == 0, made
    table = tomli.loads((flux.folder / "a/b/c d.toml").read_text())
    assert (table["model"]["source"], table["name"]) == ("../../flux", "c-d")
    assert flux.invoke("validate", "a/b/c d.toml").code == 0
    assert "# Command:   runner run 'a/b/c d.toml'\n" in (flux.folder / "a/b/c d.toml").read_text()


def test_a_file_that_is_there_is_overwritten_by_force_alone(flux: Project) -> None:
    flux.write("my.toml", "mine\n")
    arguments = ["new", "--vram", "8GiB", "--ram", "30GiB", "--model", "./flux", "-o", "my.toml"]
    refused = flux.invoke(*arguments)
    assert refused.code == 2, refused
    assert "my.toml is there already; --force overwrites it" in refused.stderr
    assert (flux.folder / "my.toml").read_text() == "mine\n"
    assert flux.invoke(*arguments, "--force").code == 0
    assert flux.invoke("validate", "my.toml").code == 0


def test_hardware_that_is_too_small_is_exit_5_with_the_arithmetic_and_nothing_is_written(
    flux: Project,
) -> None:
    made = flux.invoke("new", "--vram", "300MiB", "--ram", "64GiB", "--model", "./flux", "-o", "my.toml")
    assert made.code == 5, made
    assert "stage 'encode' does not fit" in made.stderr
    assert "stage 'diffuse' does not fit" in made.stderr
    assert "of VRAM are missing: it needs" in made.stderr
    assert "(lowered already: stage.decode.with.tiling 256)" in made.stderr
    assert "would fit: a budget of" in made.stderr
    assert not (flux.folder / "my.toml").exists()


def test_what_is_not_given_is_what_this_machine_has(flux: Project) -> None:
    cards = (Device("cuda", 0, "Card A", 12 * GIB - 100), Device("cuda", 1, "Card B", 8 * GIB))
    machine = replace(LARGE, accelerators=cards)
    for device, vram in (("auto", "11.75GiB"), ("cuda:1", "8GiB")):
        made = flux.invoke("new", "--device", device, "--model", "./flux", machine=machine)
        assert made.code == 0, made
        budget = tomli.loads(made.stdout)["budget"]
        assert budget == {"device": device, "vram": vram, "ram": "1023.5GiB"}
        assert f'vram = "{vram}": Card' in made.stderr
    refused = flux.invoke("new", "--device", "cuda:2", "--model", "./flux", machine=machine)
    assert refused.code == 2, refused
    assert "--device cuda:2: this machine has none to take the size of; give --vram" in refused.stderr


def test_without_a_card_it_is_for_the_cpu(flux: Project) -> None:
    made = flux.invoke("new", "--ram", "64GiB", "--model", "./flux", machine=LARGE)
    assert tomli.loads(made.stdout)["budget"] == {"device": "cpu", "ram": "64GiB"}
    assert "for the CPU: this machine has no accelerator" in made.stderr
    made = flux.invoke("new", "--ram", "64GiB", "--vram", "8GiB", "--device", "cpu", "--model", "./flux")
    assert tomli.loads(made.stdout)["budget"] == {"device": "cpu", "ram": "64GiB"}
    assert "--vram 8GiB is ignored" in made.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--vram", "8"], 2, '--vram: write a size with its unit, such as "8GiB"'),
        (["--ram", ""], 2, "--ram: write a size with its unit"),
        (["--device", "gpu"], 2, "there is no such device; write auto, cpu, cuda[:N]"),
        (["--name", "a/b"], 2, "the name 'a/b' cannot be a folder's"),
        (["--model", "flux"], 2, "--model: 'flux' is not a model source"),
        (["--model", "./nowhere"], 8, "there is no model folder"),
        (
            ["--template", "flax"],
            2,
            "there is no such template; did you mean 'flux'? (there are: any, flux, klein,",
        ),
        (["-o", "."], 2, "that is a folder; name a file"),
    ],
)
def test_what_cannot_be(flux: Project, arguments: list[str], code: int, words: str) -> None:
    made = flux.invoke("new", "--vram", "8GiB", "--ram", "30GiB", "--model", "./flux", *arguments)
    assert made.code == code, made
    assert words in made.stderr
    assert made.stdout == ""


def test_a_model_index_that_cannot_be_read_leaves_the_only_template(flux: Project, full: Path) -> None:
    (flux.folder / "flux").unlink()
    (flux.folder / "flux").mkdir()
    for part in full.iterdir():
        if part.name != "model_index.json":
            (flux.folder / "flux" / part.name).symlink_to(part)
    assert flux.invoke("new", "--vram", "8GiB", "--ram", "30GiB", "--model", "./flux").code == 0


def test_a_hub_model_that_is_not_here_is_described_by_its_headers_alone(project: Project, full: Path) -> None:
    files = published(full)
    hub = Hub({"some-lab/flux": Repository(files)})
    with hub.served():
        project.environment["HF_ENDPOINT"] = hub.url
        arguments = ["new", "--vram", "8GiB", "--ram", "30GiB", "--model", "some-lab/flux"]
        made = project.runner(*arguments)
        assert made.code == 0, made
        assert (
            "# Hardware:  a CUDA card with 8 GiB, 30 GiB of RAM, 34 GB of disk for the model.\n"
            in made.stdout
        )
        assert "\n# Access:    from the hub; where it is gated, accept its licence" in made.stdout
        assert sum(hub.sent.values()) < 4 << 20
        hub.repositories["some-lab/flux"].files["model_index.json"] = b'{"_class_name": "Other"}'
        hub.repositories["some-lab/flux"].commit = "f" * 40
        other = project.runner(*arguments)
        assert other.code == 8, other
        assert "the installed diffusers has no pipeline Other" in other.stderr


def test_the_command_line_stays_light() -> None:
    check = "import sys; import runner.cli.app; print(sorted({'torch', 'pydantic', 'numpy', 'tomlkit'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
