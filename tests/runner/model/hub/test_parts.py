"""Components from elsewhere that are on the hub: fetched alone, damaged, and made again from a commit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from checkpoints import DEMO
from hub import COMMIT, Hub, Repository
from parts import MANIFEST, WEIGHTS, started

if TYPE_CHECKING:
    from collections.abc import Iterator

    from project import Project


@pytest.fixture
def hub(parted: Project) -> Iterator[Hub]:
    """A hub with the VAE by itself, in a sub-folder of a sub-folder, and in a pipeline."""
    alone, pipeline = Repository.of(DEMO / "vae"), Repository.of(DEMO)
    deep = Repository({f"for/flux/{name}": data for name, data in alone.files.items()})
    repositories = {"lab/vae": alone, "lab/deep": deep, "lab/flux": pipeline}
    with Hub(repositories).served() as served:
        parted.environment |= {"HF_ENDPOINT": served.url, "HF_HUB_DISABLE_XET": "1"}
        parted.write("parts.toml", MANIFEST.replace("./my-vae", "lab/vae"))
        yield served


def test_a_part_is_fetched_like_a_model(parted: Project, hub: Hub) -> None:
    planned = parted.runner("plan", "parts.toml")
    assert planned.code == 0, planned
    assert f"component 'vae' (model 'lab/vae'): commit {COMMIT[:12]}, the latest on the hub" in planned.stdout
    assert "component 'vae' (model 'lab/vae') is not here yet" in planned.stdout
    fetched = parted.runner("fetch", "parts.toml", "--json")
    assert fetched.code == 0, fetched
    reported = {event["source"]: event for event in fetched.of("fetched")}
    assert reported["lab/vae"]["component"] == "vae"
    assert reported["lab/vae"]["commit"] == COMMIT
    assert reported["plugin:flux/demo"]["component"] is None
    assert {name for name, wanted in hub.downloads if wanted is None} == {"config.json", WEIGHTS}

    assert started(parted.runner("run", "without.toml", "--json"))
    parted.environment["HF_HUB_OFFLINE"] = "1"
    assert started(parted.runner("run", "parts.toml", "--json")) == []


@pytest.mark.parametrize("source", ["lab/flux", "lab/flux:vae", "lab/deep:for/flux", f"lab/vae@{COMMIT}"])
def test_a_part_of_a_repository_is_fetched_alone(parted: Project, hub: Hub, source: str) -> None:
    outcome = parted.runner("fetch", "parts.toml", "--set", f"model.components.vae={source}")
    assert outcome.code == 0, outcome
    names = {name.rpartition("/")[2] for name, wanted in hub.downloads if wanted is None}
    assert names - {"model_index.json"} == {"config.json", WEIGHTS}
    parted.environment["HF_HUB_OFFLINE"] = "1"
    outcome = parted.runner("validate", "parts.toml", "--set", f"model.components.vae={source}")
    assert outcome.code == 0, outcome
    assert "not here yet" not in outcome.stderr


@pytest.mark.usefixtures("hub")
def test_what_the_hub_lacks_names_the_part(parted: Project) -> None:
    for source, words in [
        ("lab/gone", "component 'vae' (model 'lab/gone') was not found"),
        (
            "lab/deep",
            "component 'vae' (model 'lab/deep') has no files in its root: name the folder that holds",
        ),
        ("lab/deep:vae", "component 'vae' (model 'lab/deep') has no folder 'vae'"),
    ]:
        outcome = parted.runner("plan", "parts.toml", "--set", f"model.components.vae={source}")
        assert outcome.code == 8, outcome
        assert words in outcome.stderr, outcome
    parted.environment["HF_HUB_OFFLINE"] = "1"
    outcome = parted.runner("run", "parts.toml")
    assert outcome.code == 8, outcome
    message = (
        "parts.toml:6:7: component 'vae' (model 'lab/vae') is not (completely) on this machine, and HF_HUB_"
    )
    assert message in outcome.stderr
    assert "or set `components.vae` to a folder on this machine" in outcome.stderr


def test_a_damaged_part_is_fetched_again(parted: Project, hub: Hub) -> None:
    assert parted.runner("fetch", "parts.toml").code == 0
    (link,) = (parted.folder / "hub").rglob(f"snapshots/*/{WEIGHTS}")
    link.resolve().write_bytes(b"damaged")
    hub.downloads.clear()
    planned = parted.runner("plan", "parts.toml")
    assert f"the hub's cache has a damaged {WEIGHTS}" in planned.stdout, planned
    outcome = parted.runner("fetch", "parts.toml")
    assert outcome.code == 0, outcome
    assert f"component 'vae' (model 'lab/vae'): {WEIGHTS} was damaged" in outcome.stderr


@pytest.mark.usefixtures("hub")
def test_an_output_is_reproduced_from_the_recorded_commit(parted: Project) -> None:
    assert started(parted.runner("run", "parts.toml", "--json", "--set", "model.components.vae=lab/flux:vae"))
    (name,) = parted.outputs("parts")
    shown = parted.runner("reproduce", f"runs/parts/outputs/{name}", "--runs-dir", "runs")
    assert shown.code == 0, shown
    recorded = (parted.folder / "runs/reproduce/manifest.toml").read_text()
    assert f'vae = "lab/flux@{COMMIT}:vae"' in recorded
