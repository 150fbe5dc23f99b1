"""Damage in the hub's cache: fetched again where that can be, and reported with the blob where it cannot."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

import pytest
from checkpoints import make_flux
from hub import COMMIT, Hub, Repository
from project import Project

from runner.api import Component
from runner.model.files import open_component
from runner.model.fingerprint import altered, fingerprint, trust_names
from runner.model.hub.damage import HASHED_AT_ONCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MODEL = "some-lab/tiny-flux"
VAE = "vae/diffusion_pytorch_model.safetensors"
MANIFEST = """
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
[[stage]]
name = "decode"
uses = "flux.decode"
[batch]
prompts = ["a"]
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    repository = Repository.of(make_flux(tmp_path_factory.mktemp("hub") / "flux"))
    with Hub({MODEL: repository}).served() as served:
        yield served


@pytest.fixture(scope="module")
def fetched(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with all of the model in its hub's cache."""
    project = Project(tmp_path_factory.mktemp("fetched"))
    outcome = online(project, hub).runner("fetch", "hub.toml", "--json")
    assert outcome.code == 0, outcome
    assert outcome.of("fetched")[0]["commit"] == COMMIT
    return project.folder


@pytest.fixture
def project(hub: Hub, fetched: Path, tmp_path: Path) -> Project:
    shutil.copytree(fetched, tmp_path / "project", symlinks=True, ignore=shutil.ignore_patterns("agreed"))
    hub.downloads.clear()
    return online(Project(tmp_path / "project"), hub)


def online(project: Project, hub: Hub) -> Project:
    project.write("hub.toml", MANIFEST)
    project.environment |= {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1"}
    return project


def snapshot(project: Project) -> Path:
    return project.folder / "hub/hub/models--some-lab--tiny-flux/snapshots" / COMMIT


def cut(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(min(1000, path.stat().st_size // 2))


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b" ")


def altered_byte(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-2] + bytes([data[-2] ^ 1]) + data[-1:])


def blob_gone(path: Path) -> None:
    path.resolve().unlink()


def link_gone(path: Path) -> None:
    path.unlink()


def a_file_and_no_link(path: Path) -> None:
    path.unlink()
    path.write_bytes(b"{")


INDEX = "transformer/diffusion_pytorch_model.safetensors.index.json"
SHARD = "text_encoder_2/model-00001-of-"
DAMAGE = {
    "lengths": {
        VAE: cut,
        "tokenizer_2/tokenizer.json": cut,
        INDEX: cut,
        "tokenizer_2/spiece.model": emptied,
        SHARD: emptied,
        "model_index.json": longer,
    },
    "bytes and links": {
        VAE: altered_byte,
        "vae/config.json": altered_byte,
        "tokenizer/merges.txt": altered_byte,
        SHARD: blob_gone,
        "tokenizer/vocab.json": link_gone,
        "scheduler/scheduler_config.json": a_file_and_no_link,
    },
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_what_is_damaged_is_fetched_again_once(project: Project, hub: Hub, kind: str) -> None:
    damage = {first_path(project, name): how for name, how in DAMAGE[kind].items()}
    whole = {path: path.read_bytes() for path in damage}
    for path, how in damage.items():
        how(path)

    outcome = project.runner("fetch", "hub.toml", "--json")

    assert outcome.code == 0, outcome
    # what lost its link alone is still there
    fetched = [path for path, how in damage.items() if how not in (link_gone, a_file_and_no_link)]
    names = sorted(path.relative_to(snapshot(project)).as_posix() for path in fetched)
    assert sorted(asked for asked, _ in hub.downloads) == names
    assert {path: path.read_bytes() for path in damage} == whole
    warnings = outcome.of("warning")
    assert {warning["kind"] for warning in warnings} == {"repaired"}
    reported = "\n".join(warning["message"] for warning in warnings)
    for name, how in DAMAGE[kind].items():
        assert reported.count(name) == (how not in (blob_gone, link_gone)), "not there is not damaged"
    project.environment["HF_HUB_OFFLINE"] = "1"
    assert project.runner("validate", "hub.toml").code == 0


def first_path(project: Project, beginning: str) -> Path:
    """The file of the snapshot whose name begins so."""
    files = snapshot(project).rglob("*")
    return next(p for p in files if p.relative_to(snapshot(project)).as_posix().startswith(beginning))


@pytest.mark.parametrize(
    ("damage", "name", "commands"),
    [
        (cut, VAE, ("validate", "plan", "fetch", "run")),
        (altered_byte, "vae/config.json", ("validate",)),
        (cut, INDEX, ("validate",)),
    ],
)
def test_where_it_cannot_be_fetched_the_blob_is_named(
    project: Project, damage: Callable[[Path], None], name: str, commands: tuple[str, ...]
) -> None:
    damage(snapshot(project) / name)
    left = (snapshot(project) / name).read_bytes()
    blob = (snapshot(project) / name).resolve()
    project.environment["HF_HUB_OFFLINE"] = "1"
    for command in commands:
        outcome = project.runner(command, "hub.toml")
        assert outcome.code == 8, outcome
        assert f"damaged {name} ({blob}: " in outcome.stderr
        assert "HF_HUB_OFFLINE forbids fetching it" in outcome.stderr
        assert "hub.toml:4:10: " in outcome.stderr
        assert "a run fetches" not in outcome.stdout
    del project.environment["HF_HUB_OFFLINE"]
    project.environment["HF_ENDPOINT"] = "http://127.0.0.1:9"
    outcome = project.runner("fetch", "hub.toml")
    assert outcome.code == 8, outcome
    assert f"damaged {name} ({blob}: " in outcome.stderr
    assert "the hub cannot be reached" in outcome.stderr
    assert (snapshot(project) / name).read_bytes() == left


def test_a_plan_says_that_it_will_be_fetched_again(project: Project) -> None:
    cut(snapshot(project) / VAE)
    outcome = project.runner("plan", "hub.toml")
    assert outcome.code == 0, outcome
    assert f"the hub's cache has a damaged {VAE}" in outcome.stdout
    assert "a run fetches and hashes first" in outcome.stdout


def test_what_cannot_be_removed_is_reported(project: Project) -> None:
    blob = (snapshot(project) / VAE).resolve()
    blob.unlink()
    blob.mkdir()
    (blob / "in the way").touch()
    outcome = project.runner("fetch", "hub.toml")
    assert outcome.code == 8, outcome
    assert f"{blob} is damaged and cannot be removed" in outcome.stderr
    assert "set HF_HOME" in outcome.stderr


def test_what_a_link_leads_to_outside_of_the_cache_is_left_alone(project: Project) -> None:
    mine = project.write("mine.json", "{}")
    link = snapshot(project) / "vae/config.json"
    link.unlink()
    link.symlink_to(mine)
    outcome = project.runner("fetch", "hub.toml", "--json")
    assert outcome.code == 0, outcome
    assert len(outcome.of("warning")) == 1
    assert mine.read_text() == "{}"
    assert json.loads(link.read_text())["latent_channels"] == 16


def test_a_large_blob_is_believed_by_its_name_until_it_is_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNNER_CACHE", str(tmp_path / "cache"))
    blob = tmp_path / "blobs" / ("ab" * 32)
    blob.parent.mkdir()
    with blob.open("wb") as file:
        file.truncate(HASHED_AT_ONCE + 1)
    os.utime(blob, (1, 1))
    (tmp_path / "snapshots/c/part").mkdir(parents=True)
    (tmp_path / "snapshots/c/part/large.dat").symlink_to(blob)
    files = [open_component(tmp_path / "snapshots/c", Component("part", "x:Y", files=("large.dat",)))]

    trust_names(files)
    first = fingerprint(files, hash_missing=False)
    assert first is not None
    assert altered(files) == []
    altered_byte(blob)
    os.utime(blob, (1, 1))
    assert fingerprint(files, hash_missing=False) is None
    assert altered(files) == ["part/large.dat"]
    assert fingerprint(files) != first
