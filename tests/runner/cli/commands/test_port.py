"""`runner port`: a manifest for other hardware, with the fewest changes, on FLUX.1-dev's published shapes."""

from __future__ import annotations

import difflib
import json
import re
from typing import TYPE_CHECKING, Any

import pytest
import tomli
from large import make_full_flux

from runner.machine.describe import Machine
from runner.units import format_size

if TYPE_CHECKING:
    from pathlib import Path

    from project import Outcome, Project

GIB = 1 << 30
MANIFEST = """\
# Purpose:   FLUX at home.
# Hardware:  the card in the cellar
version = 1
name = 'home'    # where it goes

model = { source = './flux' }

[budget]   # of the card in the cellar
vram = "24GiB" # all of it
  threads = 2
# The encoders come first.
[[stage]]
name = "encode"
uses = "flux.encode"
dtype = "float32"   # all the digits
save_dtype = 'bfloat16'

# what takes long
[[stage]]
name = "diffuse"
# predicted: nothing good
uses = "flux.diffuse"
dtype = "bfloat16"

[[stage]]
name = "decode"
uses = "flux.decode"
dtype = "bfloat16"
# no more than this
[stage.with]
tiling = "auto"    # or a size

[batch]   # mine
prompts = ["a", '''
[[stage]]
# predicted: a string
''']
# the end, without a newline"""


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_full_flux(tmp_path_factory.mktemp("published") / "flux")


@pytest.fixture
def home(project: Project, full: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with a manifest, where it is an error to look at this machine."""

    def looked(**_: object) -> Machine:
        raise AssertionError("port looked at this machine")

    (project.folder / "flux").symlink_to(full)
    project.write("home.toml", MANIFEST.encode())
    monkeypatch.setattr(Machine, "here", looked)
    return project


def changed(before: str, after: str) -> list[str]:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)
    return [line for line in lines if not line.startswith(("---", "+++", "@@"))]


def table(outcome: Outcome) -> dict[str, Any]:
    assert outcome.code == 0, outcome
    return tomli.loads(outcome.stdout)


@pytest.mark.parametrize(
    ("vram", "ram"), [("6GiB", "16GiB"), ("8GiB", "30GiB"), ("12GiB", "48GiB"), ("24GiB", "64GiB")]
)
def test_what_is_written_fits_and_all_else_is_as_it_was(home: Project, vram: str, ram: str) -> None:
    ported = home.invoke("port", "home.toml", "--vram", vram, "--ram", ram)
    assert ported.code == 0, ported
    prediction = re.search(r"^# predicted: .*$", ported.stdout, re.MULTILINE)
    assert prediction
    size = f'+vram = "{vram}"'.ljust(15)  # the comment behind it keeps its column
    less = ['-vram = "24GiB" # all of it', f"{size} # all of it"] if vram != "24GiB" else []
    assert changed(MANIFEST, ported.stdout) == [
        *less,
        f'+  ram = "{ram}"',
        "-# predicted: nothing good",
        f"+{prediction.group()}",
    ]

    home.write("ported.toml", ported.stdout.encode())
    planned = home.invoke("plan", "ported.toml", "--json", machine=Machine(8, 1 << 40))
    assert planned.code == 0, planned
    diffuse = json.loads(planned.stdout)["stages"][1]
    peaks = [f"{kind.upper()} {format_size(size)}" for kind, size in diffuse["predicted"].items()]
    assert prediction.group() == f"# predicted: {diffuse['placement']}, {', '.join(peaks)}"


def test_what_changed_and_what_it_costs_is_shown(home: Project) -> None:
    ported = home.invoke("port", "home.toml", "--vram", "2.5GiB", "--ram", "64GiB")
    assert ported.code == 0, ported
    assert "\ntiling = 512       # or a size\n" in ported.stdout
    lines = ported.stderr.splitlines()
    assert "budget.vram: 24GiB -> 2.5GiB" in lines
    assert "budget.ram: not set -> 64GiB" in lines
    assert "stage.decode.with.tiling: auto -> 512 (seams between tiles are blended, other pixels)" in lines
    assert re.search(
        r"^diffuse: resident -> .*; weights moved a pass: nothing -> 2\d\.\d\d GiB$",
        ported.stderr,
        re.MULTILINE,
    )
    assert re.search(
        r"^decode: resident, VRAM .*; weights moved a pass: nothing$", ported.stderr, re.MULTILINE
    )
    assert (
        "note: outputs change from stage decode on: they get other keys, and existing outputs stay" in lines
    )
    assert "note: a comment is out of date: 'Hardware:  the card in the cellar'" in lines


def test_as_json_too(home: Project) -> None:
    ported = home.invoke("port", "home.toml", "--vram", "2.5GiB", "--ram", "64GiB", "--json")
    assert ported.code == 0, ported
    report = json.loads(ported.stdout)
    assert tomli.loads(report["text"])["budget"]["vram"] == "2.5GiB"
    assert (report["manifest"], report["path"]) == ("home.toml", None)
    assert [(change["key"], change["from"], change["to"]) for change in report["changes"]] == [
        ("budget.vram", "24GiB", "2.5GiB"),
        ("budget.ram", None, "64GiB"),
        ("stage.decode.with.tiling", "auto", 512),
    ]
    diffuse = report["stages"][1]
    assert diffuse["before"]["moved"] == 0 < diffuse["moved"]
    assert diffuse["predicted"]["vram"] <= 2.5 * GIB < diffuse["before"]["predicted"]["vram"]


def test_hardware_that_is_too_small_is_exit_5_and_nothing_is_written(home: Project) -> None:
    for target in (["-o", "out.toml"], ["--in-place"], []):
        ported = home.invoke("port", "home.toml", "--vram", "300MiB", "--ram", "64GiB", *target)
        assert ported.code == 5, ported
        assert "of VRAM are missing: it needs" in ported.stderr
        assert "(lowered already: stage.encode.dtype bfloat16)" in ported.stderr
        assert "would fit: a budget of vram" in ported.stderr
        assert ported.stdout == ""
    assert (home.folder / "home.toml").read_text() == MANIFEST
    assert not (home.folder / "out.toml").exists()


def test_up_again_undoes_the_budget_alone_and_says_so(home: Project) -> None:
    down = home.invoke("port", "home.toml", "--vram", "2.5GiB", "--ram", "64GiB", "-o", "down.toml")
    assert down.code == 0, down
    up = home.invoke("port", "down.toml", "--vram", "24GiB")
    assert table(up)["stage"][2]["with"] == {"tiling": 512}
    assert table(up)["budget"] == {"vram": "24GiB", "threads": 2, "ram": "64GiB"}
    assert (
        "note: there is more memory than before, and these settings stay: decode keeps tiling = 512"
        in up.stderr
    )


def test_stages_budgets_placements_and_maps_that_no_longer_fit_are_changed(home: Project) -> None:
    text = MANIFEST.replace(
        'dtype = "float32"', 'placement = "resident"\nbudget = { vram = "20GiB" }\ndtype = "float32"'
    )
    text = text.replace(
        'dtype = "bfloat16"\n\n', 'dtype = "bfloat16"\n[stage.device_map]\n"" = 0\n\n# over it\n', 1
    )
    text = text.replace("# no more", 'placement = "group-offload"\n# no more')
    home.write("home.toml", text.encode())
    ported = home.invoke("port", "home.toml", "--vram", "6GiB", "--ram", "64GiB")
    encode, diffuse, decode = table(ported)["stage"]
    assert (encode["placement"], encode["budget"]) == ("auto", {"vram": "6GiB"})
    assert "device_map" not in diffuse
    assert decode["placement"] == "group-offload", "which fits"
    assert "\n\n# over it\n[[stage]]" in ported.stdout
    assert "stage.diffuse.device_map: a device map -> taken out" in ported.stderr

    same = home.invoke("port", "home.toml", "--vram", "80GiB")
    assert table(same)["stage"] == tomli.loads(text)["stage"]
    assert (
        'encode keeps placement = "resident" and a budget of its own; diffuse keeps a device_map; '
        'decode keeps placement = "group-offload"'
    ) in same.stderr


def test_to_the_cpu_and_back(home: Project) -> None:
    text = MANIFEST.replace("# no more", 'placement = "model-offload"\n# no more')
    home.write("home.toml", text.encode())
    ported = home.invoke("port", "home.toml", "--device", "cpu", "--ram", "64GiB", "-o", "cpu.toml")
    assert ported.code == 0, ported
    written = tomli.loads((home.folder / "cpu.toml").read_text())
    assert written["budget"] == {"device": "cpu", "threads": 2, "ram": "64GiB"}
    assert written["stage"][2]["placement"] == "auto"
    assert "budget.vram: 24GiB -> taken out (the CPU has no VRAM)" in ported.stderr
    back = home.invoke("port", "cpu.toml", "--vram", "8GiB")
    assert table(back)["budget"] == {"device": "auto", "vram": "8GiB", "threads": 2, "ram": "64GiB"}
    card = home.invoke("port", "cpu.toml", "--vram", "8GiB", "--device", "cuda:1")
    assert table(card)["budget"]["device"] == "cuda:1"


def test_sizes_that_nobody_gives_are_without_end_and_it_says_so(home: Project) -> None:
    ported = home.invoke("port", "home.toml", "--vram", "12GiB")
    assert "note: no ram is given or in the manifest: planned without a limit (--ram)" in ported.stderr
    assert "no vram is given" not in ported.stderr


def test_whether_there_is_a_card_is_not_guessed(home: Project) -> None:
    home.write("home.toml", MANIFEST.replace('vram = "24GiB" # all of it\n', "").encode())
    ported = home.invoke("port", "home.toml", "--ram", "16GiB")
    assert ported.code == 2, ported
    assert "it is not known whether there is a card: give --vram, or --device cpu" in ported.stderr
    ported = home.invoke("port", "home.toml", "--ram", "64GiB", "--device", "cpu", "--vram", "8GiB")
    assert table(ported)["budget"] == {"device": "cpu", "threads": 2, "ram": "64GiB"}
    assert "note: --vram 8GiB is ignored: the device is the CPU" in ported.stderr
    assert "encode: resident, RAM" in ported.stderr, "there is nothing to compare it with"


def test_what_fits_as_it_is_is_not_changed(home: Project) -> None:
    text = MANIFEST.replace("nothing good", "old").replace("# predicted: old\n", "")
    home.write("home.toml", text.encode())
    ported = home.invoke("port", "home.toml", "--vram", "24576MiB")
    assert ported.stdout == text
    assert "nothing is changed: it fits as it is" in ported.stderr


def test_in_place_and_into_another_folder(home: Project) -> None:
    ported = home.invoke("port", "home.toml", "--vram", "8GiB", "--ram", "30GiB", "-o", "other/place.toml")
    assert ported.code == 0, ported
    assert ported.stdout == ""
    assert tomli.loads((home.folder / "other/place.toml").read_text())["model"] == {"source": "../flux"}
    assert home.invoke("validate", "other/place.toml").code == 0
    (home.folder / "link.toml").symlink_to("home.toml")
    assert home.invoke("port", "link.toml", "--vram", "8GiB", "--in-place").code == 0
    assert (home.folder / "link.toml").is_symlink()
    assert tomli.loads((home.folder / "home.toml").read_text())["budget"]["vram"] == "8GiB"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "say what the other hardware has: --vram, --ram, --device"),
        (["--vram", "8"], 2, "--vram: write a size with its unit"),
        (["--device", "tpu"], 2, "--device tpu: there is no such device"),
        (["--vram", "8GiB", "--in-place", "-o", "x.toml"], 2, "-o and --in-place exclude each other"),
        (["--vram", "8GiB", "-o", "home.toml"], 2, "home.toml is there already; --force overwrites it"),
    ],
)
def test_what_cannot_be(home: Project, arguments: list[str], code: int, words: str) -> None:
    ported = home.invoke("port", "home.toml", *arguments)
    assert ported.code == code, ported
    assert words in ported.stderr
    assert (home.folder / "home.toml").read_text() == MANIFEST


def test_a_wrong_manifest_is_exit_3_where_it_stands(home: Project) -> None:
    home.write("home.toml", MANIFEST.replace("tiling", "tilin").encode())
    ported = home.invoke("port", "home.toml", "--vram", "8GiB")
    assert ported.code == 3, ported
    assert "flux.decode has no parameter 'tilin'; did you mean 'tiling'?" in ported.stderr
