"""``runner fetch``: downloads before a run, each once; commits of branches; the commit that a plan is for."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest
from checkpoints import make_flux
from hub import COMMIT, Hub, Repository
from safetensors.torch import load, save
from waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import torch
    from project import Project

MODEL = "some-lab/tiny-flux"
VAE = "vae/diffusion_pytorch_model.safetensors"
PART = """
version = 1
name = "hub"
[model]
source = "some-lab/tiny-flux"
[budget]
device = "cpu"
[[stage]]
name = "encode"
uses = "flux.encode"
[[stage]]
name = "diffuse"
uses = "flux.diffuse"
[batch]
prompts = ["a"]
"""
WHOLE = PART.replace("[batch]", '[[stage]]\nname = "decode"\nuses = "flux.decode"\n[batch]')


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_flux(tmp_path_factory.mktemp("hub") / "flux")


@pytest.fixture
def hub(project: Project, checkpoint: Path) -> Iterator[Hub]:
    with Hub({MODEL: Repository.of(checkpoint)}).served() as served:
        project.environment |= {"HF_ENDPOINT": served.url, "HF_HUB_DISABLE_XET": "1"}
        project.write("hub.toml", WHOLE)
        yield served


def whole_files(hub: Hub) -> list[str]:
    return sorted(name for name, asked in hub.downloads if asked is None)


def test_what_several_manifests_need_is_fetched_once(project: Project, hub: Hub) -> None:
    project.write("first.toml", PART)
    project.write("broken.toml", "version = 2\n")
    outcome = project.runner("fetch", "*.toml")
    assert outcome.code == 3, outcome
    assert "broken.toml:1:" in outcome.stderr
    assert f"model '{MODEL}': commit {COMMIT}, fetched" in outcome.stderr
    fetched = whole_files(hub)
    assert VAE in fetched
    assert len(fetched) == len(set(fetched))
    assert project.files() == {"hub.toml", "first.toml", "broken.toml"}

    hub.requests = 0
    again = project.runner("fetch", "hub.toml", "--json")
    assert again.code == 0, again
    (event,) = again.of("fetched")
    assert (event["source"], event["commit"], event["before"]) == (MODEL, COMMIT, COMMIT)
    assert hub.requests == 0
    planned = json.loads(project.runner("plan", "hub.toml", "--json").stdout)
    assert planned["stages"][0]["todo"] == "pending", "tokenizers are hashed by a run"
    assert hub.requests == 0


def test_a_branch_stays_where_it_was_until_it_is_asked_for(project: Project, hub: Hub) -> None:
    assert project.runner("fetch", "hub.toml").code == 0
    repository = hub.repositories[MODEL]
    repository.commit = COMMIT[::-1]
    weights = load(bytes(repository.files[VAE]))  # type: ignore[arg-type]
    repository.files[VAE] = save({name: w + 1 for name, w in weights.items()})
    hub.downloads.clear()

    stays = project.runner("plan", "hub.toml")
    assert (
        f"model '{MODEL}': commit {COMMIT[:12]}, in the hub's cache; `runner fetch --refresh`" in stays.stdout
    )
    assert project.runner("fetch", "hub.toml").code == 0
    assert hub.downloads == []

    refreshed = project.runner("fetch", "hub.toml", "--refresh")
    assert refreshed.code == 0, refreshed
    assert f"commit {COMMIT[::-1]}, moved, fetched (it was at {COMMIT})" in refreshed.stderr
    assert whole_files(hub) == [VAE], "what is the same is not fetched again"
    planned = json.loads(project.runner("plan", "hub.toml", "--json").stdout)
    assert planned["models"] == [
        {
            "source": MODEL,
            "revision": None,
            "variant": None,
            "component": None,
            "file": None,
            "commit": COMMIT[::-1],
            "here": True,
        }
    ]
    pinned = project.runner("plan", "hub.toml", "--set", f"model.revision={COMMIT}")
    assert f"commit {COMMIT[:12]}, in the hub's cache\n" in pinned.stdout


def test_of_a_model_that_is_not_here_the_plan_says_where_it_stands(project: Project, hub: Hub) -> None:
    planned = project.runner("plan", "hub.toml")
    assert f"commit {COMMIT[:12]}, the latest on the hub at the last check" in planned.stdout
    assert 'here": false' in project.runner("plan", "hub.toml", "--json").stdout
    assert hub.downloads


def test_a_folder_takes_no_network(project: Project, hub: Hub, checkpoint: Path) -> None:
    outcome = project.runner("fetch", "hub.toml", "--refresh", "--set", f"model.source={checkpoint}")
    assert outcome.code == 0, outcome
    assert "nothing to fetch" in outcome.stderr
    assert hub.requests == 0


def add_layouts(repository: Repository) -> list[str]:
    """Put the same weights there in other layouts, and return the names."""
    files = repository.files
    added = {
        "vae/ae.safetensors": files[VAE],
        "vae/diffusion_pytorch_model.fp16.safetensors": files[VAE],
        "text_encoder/model.fp16.safetensors": files["text_encoder/model.safetensors"],
    }
    for folder, name in (("transformer", "diffusion_pytorch_model"), ("text_encoder_2", "model")):
        weights: dict[str, torch.Tensor] = {}
        for shard in [n for n in files if n.startswith(f"{folder}/") and n.endswith(".safetensors")]:
            weights |= load(bytes(files[shard]))  # type: ignore[arg-type]
        added[f"{folder}/{name}.safetensors"] = save(weights)
    files |= added
    return list(added)


def test_of_several_layouts_one_is_fetched(project: Project, hub: Hub) -> None:
    needed = sorted(hub.repositories[MODEL].files)
    add_layouts(hub.repositories[MODEL])
    assert project.runner("fetch", "hub.toml").code == 0
    assert whole_files(hub) == needed
    project.environment["HF_HUB_OFFLINE"] = "1"
    assert project.runner("validate", "hub.toml").code == 0


def test_a_variant_is_fetched_in_the_place_of_plain_files(project: Project, hub: Hub) -> None:
    add_layouts(hub.repositories[MODEL])
    outcome = project.runner("fetch", "hub.toml", "--set", "model.variant=fp16")
    assert outcome.code == 0, outcome
    fetched = whole_files(hub)
    assert {name for name in fetched if "fp16" in name} == {
        "vae/diffusion_pytorch_model.fp16.safetensors",
        "text_encoder/model.fp16.safetensors",
    }
    assert not {VAE, "text_encoder/model.safetensors"} & set(fetched)
    absent = project.runner("plan", "hub.toml", "--set", "model.variant=bf16")
    assert absent.code == 8, absent
    assert "has no files of variant 'bf16' (there are: fp16)" in absent.stderr


def test_a_repository_with_nothing_but_a_variant_says_so(project: Project, hub: Hub) -> None:
    files = hub.repositories[MODEL].files
    files["vae/diffusion_pytorch_model.fp16.safetensors"] = files.pop(VAE)
    for command in ("plan", "fetch"):
        outcome = project.runner(command, "hub.toml")
        assert outcome.code == 8, outcome
        assert outcome.stderr.startswith("hub.toml:4:10: "), outcome
        assert (
            "has weights only as variant 'fp16': write `variant = \"fp16\"` under `source`" in outcome.stderr
        )


def test_ctrl_c_ends_it_at_once(project: Project, hub: Hub) -> None:
    hub.repositories[MODEL].stalled = True
    process = project.start("fetch", "hub.toml")
    wait_until(lambda: hub.downloads, 60, "a download has begun")
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 130, stderr
    assert "interrupted; the same command goes on from there" in stderr
    hub.stopped.set()
