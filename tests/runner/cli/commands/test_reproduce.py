"""``runner reproduce``: the same again, bit for bit, or what differs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hub import COMMIT, Hub, Repository
from PIL import Image
from project import Project

from runner.files.provenance import read_provenance, sidecar, without_provenance

if TYPE_CHECKING:
    from collections.abc import Callable

    from project import Outcome

DEMO = Path(__file__).parents[4] / "manifests" / "demo.toml"

# texts that replace parameters, files between stages, an input that nobody leaves, two models, renamed inputs,
# and a parameter whose model takes nothing but what is written with a unit
CHAIN = """
from __future__ import annotations
import io
from typing import Annotated
from pydantic import BaseModel, BeforeValidator
from runner.api import Component, File, Stage, Tensor, Text, hookimpl

RUNNER_API = 1


def decibels(value):
    if not isinstance(value, str) or not value.endswith("dB"):
        raise ValueError(f"write it with its unit, such as 3dB, not {value!r}")
    return int(value.removesuffix("dB"))


class Caption(BaseModel):
    prompt: str
    loudness: Annotated[int, BeforeValidator(decibels)] = 1
    mark: str | None = "!"


class Draw(BaseModel):
    prompt: str
    seed: int = 0
    side: int = 4


@hookimpl
def runner_stages():
    return (
        Stage(
            name="chain.caption", params="chain:Caption", start="chain:caption",
            outputs=(Text("prompt"), File("sketch", ".png")),
        ),
        Stage(
            name="chain.draw", version=1, params="chain:Draw", start="chain:draw",
            inputs=(File("sketch", ".png"), Tensor("mask", optional=True)),
            outputs=(Tensor("latents", "floating", ("H", "W")),),
            components=(Component("part", "chain:nothing", config_only=True),),
        ),
        Stage(
            name="chain.blend", start="chain:blend",
            inputs=(Tensor("first"), Tensor("second")),
            outputs=(File("picture", ".png"), File("again", ".png"), File("page", ".txt")),
        ),
    )


def picture(numbers):
    from PIL import Image
    size = numbers.shape[1], numbers.shape[0]
    return Image.frombytes("L", size, bytes(int(n * 250) for n in numbers.flatten().tolist()))


def caption(ctx):
    import torch

    def one(item):
        text = item.params.prompt.upper() + (item.params.mark or "") * item.params.loudness
        return {"prompt": text, "sketch": picture(torch.full((2, 2), len(text) / 250))}

    return one


def draw(ctx):
    import torch
    from PIL import Image

    def one(item):
        assert item.params.prompt.isupper() and "mask" not in item.inputs
        with Image.open(item.inputs["sketch"]) as sketch:
            scale = sketch.getpixel((0, 0)) / 250 * ctx.config("part")["scale"]
        seeded = torch.Generator().manual_seed(item.params.seed)
        return {"latents": torch.rand(item.params.side, item.params.side, generator=seeded) * scale}

    return one


def blend(ctx):
    def one(item):
        both = (item.inputs["first"] + item.inputs["second"]) / 2
        text = f"{both.sum().item():.6f}".encode()
        return {"picture": picture(both), "again": picture(both / 2), "page": text}

    return one
"""

MANIFEST = """
version = 1
name = "chain"
[model]
source = "./models/one"
[budget]
device = "cpu"
threads = 1
[[stage]]
name = "caption"
uses = "chain.caption"
[[stage]]
name = "z-first"
uses = "chain.draw"
save_dtype = "bfloat16"
[[stage]]
name = "a-second"
uses = "chain.draw"
[stage.model]
source = "../elsewhere/two"
[stage.with]
seed = 5
[[stage]]
name = "blend"
uses = "chain.blend"
[stage.from]
first = "z-first.latents"
second = "latents"
[batch]
file = "items.csv"
[[item]]
id = "fox"
prompt = "ein Füchslein 狐"
loudness = "7dB"
[[item]]
id = "shared"
prompt = "ein Füchslein 狐"
loudness = "7dB"
seed = 9
"""


@pytest.fixture(scope="module")
def chained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose batch has been made."""
    project = Project(tmp_path_factory.mktemp("chained"))
    project.plugin("chain", CHAIN)
    project.write("sub/chain.toml", MANIFEST)
    project.write("sub/items.csv", "prompt,loudness,seed\nan owl,3dB,4\n")
    project.write("sub/models/one/part/config.json", '{"scale": 1.0}')
    project.write("elsewhere/two/part/config.json", '{"scale": 0.5}')
    outcome = project.runner("run", "sub/chain.toml")
    assert outcome.code == 0, outcome
    return project.folder


@pytest.fixture
def again(chained: Path, tmp_path: Path) -> Project:
    """A copy of it that a test may change. The models, named by where they lay, stay where they were."""
    shutil.copytree(chained, tmp_path / "copy")
    return Project(tmp_path / "copy")


def outputs(project: Project) -> list[str]:
    folder = project.folder / "runs/chain/outputs"
    return sorted(str(path) for path in folder.iterdir() if not path.name.endswith(".runner.json"))


def results(outcome: Outcome) -> list[dict[str, Any]]:
    return [json.loads(line) for line in outcome.stdout.splitlines()]


def test_outputs_of_every_kind_are_made_again_from_themselves_alone(again: Project) -> None:
    shutil.rmtree(again.folder / "sub")
    shutil.rmtree(again.folder / "runs/chain/handoff")
    made = outputs(again)
    assert len(made) == 9  # three items, of each two pictures and a text
    before = again.files()

    outcome = again.runner("reproduce", *made, "--json", "-o", "new")

    assert outcome.code == 0, outcome
    assert [line["file"] for line in results(outcome)] == made
    assert {line["result"] for line in results(outcome)} == {"made again, bit for bit"}
    assert not any(line["key_mismatches"] or line["environment"] for line in results(outcome))
    assert not any(line["unlike"] or line["circumstances"] for line in results(outcome)), "earlier names"
    for old in map(Path, made):
        new = again.folder / "new" / old.name
        assert without_provenance(new.read_bytes()) == without_provenance(old.read_bytes())
        assert sidecar(new).exists() == (old.suffix == ".txt")
    assert {name for name in again.files() - before if not name.startswith("new/")} == set()


def test_another_picture_is_reported_with_the_pixels_and_a_changed_text_is_known(again: Project) -> None:
    """The stage's code was changed, and its version was not raised."""
    source = (again.packages / "chain.py").read_text()
    again.write("packages/chain.py", source.replace("picture(both),", "picture(both + 0.004),"))
    picture = next(path for path in outputs(again) if "fox" in path and path.endswith(".picture.png"))
    page = Path(next(path for path in outputs(again) if "fox" in path and path.endswith(".txt")))
    page.write_text("somebody wrote over it")

    outcome = again.runner("reproduce", picture, str(page))

    assert outcome.code == 1, outcome
    assert (
        f"{picture}: made again, and it differs: 16 of 16 pixels differ, by 1 of 255 at most"
        in outcome.stderr
    )
    assert "a stage draws at random, or its code was changed" in outcome.stderr
    assert f"{page}: made again, bit for bit" in outcome.stderr


def change_version(project: Project, _picture: Path) -> list[str]:
    source = (project.packages / "chain.py").read_text()
    project.write("packages/chain.py", source.replace("version=1", "version=2"))
    return []


def remove_plugin(project: Project, _picture: Path) -> list[str]:
    shutil.rmtree(project.packages / "chain_plugin-1.0.dist-info")
    return []


def name_another_model(project: Project, _picture: Path) -> list[str]:
    project.write("other/part/config.json", '{"scale": 0.25}')
    return ["--model", "./other"]


def name_no_model(_project: Project, _picture: Path) -> list[str]:
    return ["--model", "./nowhere"]


def narrow_parameter(project: Project, _picture: Path) -> list[str]:
    source = (project.packages / "chain.py").read_text()
    project.write("packages/chain.py", source.replace("side: int = 4", "sides: int = 4"))
    return []


def pretend_a_card(_project: Project, picture: Path) -> list[str]:
    rewrite(picture, lambda stage: stage.update(device="NVIDIA H200"))
    return []


def take_it_out(_project: Project, picture: Path) -> list[str]:
    picture.write_bytes(without_provenance(picture.read_bytes()))
    return []


def lose_a_stage(_project: Project, picture: Path) -> list[str]:
    record = read_provenance(picture)
    assert record is not None
    del record["lineage"]["caption"]
    write_sidecar(picture, record)
    return []


def color_the_terminal(_project: Project, picture: Path) -> list[str]:
    rewrite(picture, lambda stage: stage.update(stage="\x1b[31mchain.draw"))
    return []


def rewrite(picture: Path, change: Callable[[dict[str, Any]], None]) -> None:
    record = read_provenance(picture)
    assert record is not None
    for stage in record["lineage"].values():
        change(stage)
    write_sidecar(picture, record)


def write_sidecar(picture: Path, record: dict[str, Any]) -> None:
    picture.write_bytes(without_provenance(picture.read_bytes()))
    sidecar(picture).write_text(json.dumps(record))


REFUSED = {
    change_version: (4, "z-first, a-second: version of the stage: 1 -> 2"),
    remove_plugin: (4, "'chain.caption' is offered by no installed plugin"),
    name_another_model: (8, "z-first: model: "),
    name_no_model: (8, "--model SOURCE names it where it is now"),
    narrow_parameter: (4, "z-first, a-second: side: 4 -> not set"),
    pretend_a_card: (5, "it was made on 'NVIDIA H200' (--set budget.device=cpu makes it on the CPU"),
    take_it_out: (2, "has no record of what it was made from"),
    color_the_terminal: (2, "incomplete, or of another version of runner"),
    lose_a_stage: (2, "incomplete, or of another version of runner: a stage of its lineage is missing"),
}


@pytest.mark.parametrize("change", REFUSED, ids=lambda change: change.__name__)
def test_what_cannot_be_made_again_is_reported_with_the_reason(
    again: Project, change: Callable[[Project, Path], list[str]]
) -> None:
    picture = Path(next(path for path in outputs(again) if path.endswith(".picture.png")))
    arguments = change(again, picture)
    before = again.files()
    code, words = REFUSED[change]

    outcome = again.invoke("reproduce", str(picture), "--json", *arguments)

    assert outcome.code == code, outcome
    assert [(line["ok"], line["exit_code"]) for line in results(outcome)] == [(False, code)]
    shown = again.invoke("reproduce", str(picture), *arguments)
    assert words in shown.stderr, shown
    assert "Traceback" not in shown.stderr
    assert "\x1b" not in shown.stderr
    assert again.files() == before


def test_another_environment_is_reported_though_the_picture_is_the_same(again: Project) -> None:
    picture = Path(next(path for path in outputs(again) if path.endswith(".picture.png")))
    rewrite(picture, lambda stage: stage["versions"].update(torch="1.0"))

    outcome = again.runner("reproduce", str(picture), "nowhere.png", "--runs-dir", "kept")

    assert outcome.code == 2, outcome  # for the other, which kept this one from nothing
    assert "error: there is no file nowhere.png" in outcome.stderr
    assert f"{picture}: made again, bit for bit" in outcome.stderr
    assert "caption, z-first, a-second, blend: torch: 1.0 -> " in outcome.stderr
    assert (again.folder / "kept/reproduce/journal.jsonl").exists()


def test_twenty_of_twenty_pictures_of_a_mixed_batch(project: Project) -> None:
    prompts = [
        "a red circle",
        "ein grüner Stern 狐 — “quoted”",
        "a blue square\n\ton white",
        "<script>1</script>",
    ]
    items = [
        {
            "id": f"item-{n}",
            "prompt": prompts[n % 4],
            "seed": (0, 7, 2**64 - 1)[n % 3],
            "steps": 1 + n % 2,
            "guidance_scale": 3.5 if n % 5 else 0,
            "height": 64 + 16 * (n % 3),
            "width": 96 - 16 * (n % 2),
            **({"negative_prompt": "a heart", "true_cfg_scale": 2.5} if n % 7 == 3 else {}),
            **({"prompt_2": "a yellow heart"} if n % 6 == 5 else {}),
            **({"tiling": 128} if n % 9 == 8 else {}),
        }
        for n in range(20)
    ]
    text = DEMO.read_text().partition("[batch]")[0]
    project.write("mixed.toml", f'{text}[batch]\nfile = "mixed.jsonl"\n')
    project.write("mixed.jsonl", "\n".join(json.dumps(item, ensure_ascii=False) for item in items))
    outcome = project.runner("run", "mixed.toml")
    assert outcome.code == 0, outcome
    (project.folder / "runs/demo/outputs").rename(project.folder / "pictures")
    shutil.rmtree(project.folder / "runs")
    pictures = sorted(str(path) for path in (project.folder / "pictures").iterdir())

    outcome = project.runner("reproduce", *pictures, "--json", "-o", "new")

    assert outcome.code == 0, outcome
    assert [line["result"] for line in results(outcome)] == ["made again, bit for bit"] * 20
    for picture in map(Path, pictures):
        with Image.open(picture) as old, Image.open(project.folder / "new" / picture.name) as new:
            assert old.tobytes() == new.tobytes()


def test_a_model_of_the_hub_is_fetched_again_at_its_commit(project: Project) -> None:
    project.plugin("chain", CHAIN)
    text = MANIFEST.replace('source = "./models/one"', 'source = "some-lab/part"\nrevision = "main"')
    text = text.replace('[stage.model]\nsource = "../elsewhere/two"\n', "")
    project.write("chain.toml", text.partition("[batch]")[0] + '[batch]\nprompts = ["an owl"]\n')
    repository = Repository({"part/config.json": b'{"scale": 0.5}', "model_index.json": b"{}"})
    with Hub({"some-lab/part": repository}).served() as hub:
        project.environment |= {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1"}
        assert project.runner("run", "chain.toml").code == 0
        picture = next((project.folder / "runs/chain/outputs").glob("*.picture.png"))
        record = read_provenance(picture)
        assert record is not None
        assert record["lineage"]["z-first"]["source"]["commit"] == COMMIT
        shutil.rmtree(project.folder / "hub")
        hub.downloads.clear()

        outcome = project.runner("reproduce", str(picture))

        assert outcome.code == 0, outcome
        assert f"{picture}: made again, bit for bit" in outcome.stderr
        assert "part/config.json" in {name for name, _ in hub.downloads}
        shutil.rmtree(project.folder / "hub")
        repository.files["part/config.json"] = b'{"scale": 0.25}'

        changed = project.runner("reproduce", str(picture))

        assert changed.code == 8, changed
        assert "z-first, a-second: model: " in changed.stderr
