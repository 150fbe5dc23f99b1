"""``runner reproduce``: the same again, bit for bit, or what differs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from hub import COMMIT, Hub, Repository
from PIL import Image
from reproduced import CHAIN, MANIFEST, outputs, results, rewrite

from runner.files.provenance import read_provenance, sidecar, without_provenance

if TYPE_CHECKING:
    from project import Project

DEMO = Path(__file__).parents[4] / "manifests" / "demo.toml"


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
