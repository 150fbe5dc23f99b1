"""Models on the hub, with the real client against a server that speaks its protocol."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest
from checkpoints import make_flux
from hub import COMMIT, Hub, Repository
from short_flux import short_flux
from waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from project import Project

MANIFEST = short_flux("hub", "some-lab/tiny-flux")
PIECE = 10 * 2**20
SHARD = "transformer/diffusion_pytorch_model-00001-of-"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_flux(tmp_path_factory.mktemp("hub") / "flux")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # the client keeps what breaks off in pieces of 10 MiB: one file must be larger
    return make_flux(tmp_path_factory.mktemp("hub") / "flux", width=384, layers=(2, 2), shard="16MB")


@pytest.fixture
def hub(project: Project, checkpoint: Path) -> Iterator[Hub]:
    """A hub with one good repository, which holds files too that no stage needs."""
    yield from serve(project, checkpoint)


@pytest.fixture
def hub_of_large_files(project: Project, large: Path) -> Iterator[Hub]:
    yield from serve(project, large)


def serve(project: Project, model: Path) -> Iterator[Hub]:
    repository = Repository.of(model)
    repository.files["flux1-dev.safetensors"] = b"another layout of the same weights"
    repository.files["vae/diffusion_pytorch_model.fp16.safetensors"] = b"a variant"
    repository.files["README.md"] = b"read me"
    with Hub({"some-lab/tiny-flux": repository}).served() as served:
        project.environment["HF_ENDPOINT"] = served.url
        project.environment["HF_HUB_DISABLE_XET"] = "1"
        project.write("hub.toml", MANIFEST)
        yield served


def whole_files(hub: Hub) -> list[str]:
    """Names of files that were asked for from their beginning to their end, not their header alone."""
    return [name for name, asked in hub.downloads if asked is None]


def test_what_the_stages_need_is_fetched_once_and_found_again_without_the_network(
    project: Project, hub: Hub, checkpoint: Path
) -> None:
    planned = project.runner("plan", "hub.toml")
    assert planned.code == 0, planned
    assert "not here yet" in planned.stdout
    assert "transformer: resident: all of the stage fits" in planned.stdout, "planned from the headers alone"
    hub.requests = 0
    assert project.runner("validate", "hub.toml").code == 0
    assert hub.requests == 0
    hub.downloads.clear()

    outcome = project.runner("run", "hub.toml", "--json")

    assert outcome.code == 0, outcome
    fetched = {name for name, _ in hub.downloads}
    assert len(fetched) == len(hub.downloads)
    assert {name.partition("/")[0] for name in fetched} == {
        "model_index.json",
        "scheduler",
        "text_encoder",
        "text_encoder_2",
        "tokenizer",
        "tokenizer_2",
        "transformer",
        "vae",
    }
    assert not any("fp16" in name for name in fetched)
    reported = outcome.of("fetch_progress")
    assert reported[-1]["done"] == reported[-1]["total"] > 0

    hub.requests = 0
    again = project.runner("run", "hub.toml", "--json")
    assert again.code == 0, again
    assert again.of("stage_started") == []
    changed = project.runner("plan", "hub.toml", "--json", "--set", "stage.diffuse.with.steps=2")
    assert changed.code == 0, changed
    assert hub.requests == 0

    local = project.runner("run", "hub.toml", "--json", "--set", f"model.source={checkpoint}")
    assert local.code == 0, local
    assert local.of("stage_started") == [], "a folder and the hub give the same keys"


def test_a_download_that_breaks_off_goes_on_where_it_was(project: Project, hub_of_large_files: Hub) -> None:
    hub = hub_of_large_files
    repository = hub.repositories["some-lab/tiny-flux"]
    shard = next(name for name in repository.files if name.startswith(SHARD))
    assert len(repository.files[shard]) > PIECE
    repository.cuts[shard] = [PIECE + 1000] * 2  # the first request is for the header alone
    outcome = project.runner("fetch", "hub.toml")
    assert outcome.code == 0, outcome
    asked = [wanted for name, wanted in hub.downloads if name == shard]
    assert asked[asked.index(None) :][:2] == [None, f"bytes={PIECE}-"], "after its header"


def test_a_hub_that_breaks_for_good_is_exit_8_and_what_came_is_kept(
    project: Project, hub_of_large_files: Hub
) -> None:
    hub = hub_of_large_files
    repository = hub.repositories["some-lab/tiny-flux"]
    shard = next(name for name in repository.files if name.startswith(SHARD))
    repository.cuts[shard] = [PIECE + 1000] * 50
    outcome = project.runner("run", "hub.toml")
    assert outcome.code == 8, outcome
    assert "could not be fetched completely" in outcome.stderr
    assert "run it again: files that are complete are kept" in outcome.stderr
    assert "Traceback" not in outcome.stderr

    repository.cuts.clear()
    before = len({name for name, _ in hub.downloads})
    hub.downloads.clear()
    outcome = project.runner("fetch", "hub.toml")
    assert outcome.code == 0, outcome
    fetched = [name for name, _ in hub.downloads]
    assert shard in fetched
    assert len(fetched) < before


def test_ctrl_c_ends_a_download_at_once(project: Project, hub: Hub) -> None:
    hub.repositories["some-lab/tiny-flux"].stalled = True
    process = project.start("run", "hub.toml", "--json")
    wait_until(lambda: hub.downloads, 30, "a download has begun")
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)  # the download itself has no end
    assert process.returncode == 130, stderr
    assert json.loads(stdout.splitlines()[-1])["exit_code"] == 130
    hub.stopped.set()
    hub.repositories["some-lab/tiny-flux"].stalled = False
    assert project.runner("fetch", "hub.toml").code == 0


def test_a_gated_model_says_how_to_get_in(project: Project, hub: Hub) -> None:
    hub.repositories["some-lab/tiny-flux"].gated = True
    outcome = project.runner("run", "hub.toml")
    assert outcome.code == 8, outcome
    assert "model 'some-lab/tiny-flux' is gated: accept its licence" in outcome.stderr
    assert "HF_TOKEN" in outcome.stderr

    project.environment["HF_TOKEN"] = "hf_let_me_in"
    outcome = project.runner("fetch", "hub.toml")
    assert outcome.code == 0, outcome
    kept = [p for p in project.folder.rglob("*") if p.is_file()]
    assert not any(b"hf_let_me_in" in path.read_bytes() for path in kept)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("model.source=some-lab/no-flux", "model 'some-lab/no-flux' was not found: check the name"),
        ("model.revision=v9", "the model has no revision 'v9'"),
    ],
)
@pytest.mark.usefixtures("hub")
def test_a_model_or_revision_that_is_not_there(project: Project, given: str, words: str) -> None:
    outcome = project.runner("run", "hub.toml", "--set", given)
    assert outcome.code == 8, outcome
    assert words in outcome.stderr
    assert "Traceback" not in outcome.stderr


@pytest.mark.usefixtures("hub")
def test_a_commit_can_be_named(project: Project) -> None:
    outcome = project.runner("fetch", "hub.toml", "--set", f"model.revision={COMMIT}")
    assert outcome.code == 0, outcome


def test_pickled_weights_are_refused_before_anything_is_fetched(project: Project, hub: Hub) -> None:
    files = hub.repositories["some-lab/tiny-flux"].files
    for name in [n for n in files if n.startswith("vae/") and n.endswith(".safetensors")]:
        files["vae/diffusion_pytorch_model.bin"] = files.pop(name)
    outcome = project.runner("run", "hub.toml")
    assert outcome.code == 8, outcome
    assert "pickled weights only (diffusion_pytorch_model.bin)" in outcome.stderr
    assert whole_files(hub) == []


def test_a_hub_out_of_reach(project: Project) -> None:
    project.write("hub.toml", MANIFEST)
    project.environment["HF_ENDPOINT"] = "http://127.0.0.1:9"
    outcome = project.runner("run", "hub.toml")
    assert outcome.code == 8, outcome
    assert "is not (completely) on this machine, and the hub cannot be reached" in outcome.stderr
    project.environment["HF_HUB_OFFLINE"] = "1"
    outcome = project.runner("run", "hub.toml")
    assert outcome.code == 8, outcome
    assert "HF_HUB_OFFLINE forbids" in outcome.stderr


def test_a_disk_without_room_is_exit_9_before_anything_is_fetched(project: Project, hub: Hub) -> None:
    repository = hub.repositories["some-lab/tiny-flux"]
    index = json.loads(bytes(repository.files["model_index.json"][:]))
    assert index["_class_name"] == "FluxPipeline"
    repository.claimed["tokenizer/vocab.json"] = 1 << 50
    outcome = project.runner("run", "hub.toml")
    assert outcome.code == 9, outcome
    assert "needs 1048576" in outcome.stderr
    assert whole_files(hub) == []
