"""Hub models by their headers alone: right, for kilobytes, once; through the real client."""

# mypy: disable-error-code="assignment"

from __future__ import annotations

import json
import signal
import socket
import struct
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from checkpoints import make_flux
from described import (
    MODEL,
    VAE,
    describe,
    long_header,
    opened,
    published,
    start,
    weight_file,
)
from hub import COMMIT, Hub, Repository, Sparse
from large import make_full_flux
from waiting import wait_until

from runner.model.hub.contents import FIRST, _head, _parsed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from project import Project

SHARD = "transformer/diffusion_pytorch_model-0000"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_flux(tmp_path_factory.mktemp("hub") / "flux")


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_full_flux(tmp_path_factory.mktemp("published") / "flux")


@pytest.fixture
def hub(project: Project, checkpoint: Path) -> Iterator[Hub]:
    repository = Repository.of(checkpoint)
    repository.files["vae/diffusion_pytorch_model.fp16.safetensors"] = b"a variant"
    repository.files["flux1-dev.safetensors"] = b"another layout of the same weights"
    with Hub({MODEL: repository}).served() as served:
        project.environment["HF_ENDPOINT"] = served.url
        yield served


def test_the_hub_tells_what_the_folder_tells_and_is_asked_once(
    project: Project, hub: Hub, checkpoint: Path
) -> None:
    first = describe(project)
    assert first.code == 0, first
    assert json.loads(first.stdout) == opened(checkpoint)
    fetched = [name for name, _ in hub.downloads]
    assert len(fetched) == len(set(fetched))
    assert sum(name.startswith(SHARD) for name in fetched) > 1
    assert not any("fp16" in name or "tokenizer" in name for name in fetched)
    assert all(hub.sent[name] <= FIRST for name in fetched)

    hub.downloads.clear()
    hub.requests = 0
    assert describe(project).stdout == first.stdout
    assert hub.downloads == []
    assert hub.requests == 1


def test_a_model_of_34_gb_takes_kilobytes(project: Project, hub: Hub, full: Path) -> None:
    repository = Repository(published(full))
    hub.repositories[MODEL] = repository
    weights = [name for name in repository.files if name.endswith(".safetensors")]
    assert sum(map(repository.size, weights)) > 33e9

    outcome = describe(project)

    assert outcome.code == 0, outcome
    encode, diffuse, decode = json.loads(outcome.stdout)
    assert _parameters(diffuse["transformer"]) == 11_901_408_320
    assert _parameters(encode["text_encoder_2"]) == 4_762_310_656
    assert _parameters(decode["vae"]) == 83_819_683
    assert diffuse["vae"] == [{}, decode["vae"][1]]
    assert {name for name, _ in hub.downloads} >= set(weights)
    assert all(hub.sent[name] <= 150_000 for name in weights)
    assert sum(hub.sent.values()) < 150_000 * len(weights)


def _parameters(described: tuple[dict[str, Any], Any]) -> int:
    return sum((info["end"] - info["start"]) // 2 for info in described[0].values())


def test_a_server_that_ignores_ranges_sends_no_whole_file(project: Project, hub: Hub, full: Path) -> None:
    hub.repositories[MODEL] = repository = Repository(published(full), ranges=False)
    outcome = describe(project)
    assert outcome.code == 0, outcome
    weights = {name for name in repository.files if name.endswith(".safetensors")}
    # what lay in the sockets' buffers when the client hung up is counted too
    assert all(hub.sent[name] <= 16 << 20 for name in weights)


@pytest.mark.parametrize("ranges", [True, False])
def test_a_long_header_takes_a_second_request(project: Project, hub: Hub, ranges: bool) -> None:
    head, size = long_header(2000, data=1 << 20)
    repository = hub.repositories[MODEL]
    repository.files[VAE] = Sparse(head, size)
    repository.ranges = ranges
    outcome = describe(project)
    assert outcome.code == 0, outcome
    assert len(json.loads(outcome.stdout)[2]["vae"][0]) == 2000
    asked = [wanted for name, wanted in hub.downloads if name == VAE]
    assert asked == [f"bytes=0-{FIRST - 1}", f"bytes={FIRST}-{len(head) - 1}"]
    assert describe(project).stdout == outcome.stdout
    assert len(asked) == sum(name == VAE for name, _ in hub.downloads)


@pytest.mark.parametrize("length", [FIRST - 9, FIRST - 8, FIRST - 7, FIRST - 1, FIRST, FIRST + 1])
def test_a_header_may_end_anywhere(length: int) -> None:
    raw = b"{}".ljust(length)
    file = struct.pack("<Q", length) + raw
    head = _head(lambda start, stop: file[start:stop], VAE, len(file))
    assert _parsed(VAE, head, len(file)).size == len(file)  # type: ignore[union-attr]


def test_what_was_read_serves_when_the_hub_cannot_be_reached(project: Project, hub: Hub) -> None:
    first = describe(project)
    assert first.code == 0, first
    hub.failing = True
    assert describe(project).stdout == first.stdout
    assert describe(project, "v2").code == 8

    project.environment["HF_ENDPOINT"] = "http://127.0.0.1:9"
    assert describe(project).stdout == first.stdout
    other = describe(project, "v2")
    assert other.code == 8, other
    assert (
        "at 'v2' is not (completely) on this machine, and the hub cannot be reached; try again"
        in other.stderr
    )


def test_offline_what_was_read_serves_and_what_was_not_is_exit_8(project: Project, hub: Hub) -> None:
    first = describe(project)
    hub.requests = 0
    project.environment["HF_HUB_OFFLINE"] = "1"
    assert describe(project).stdout == first.stdout
    other = describe(project, "v2")
    assert other.code == 8, other
    assert f"model '{MODEL}' at 'v2' is not (completely) on this machine, and HF_HUB_OFFLINE" in other.stderr
    assert hub.requests == 0


@pytest.mark.usefixtures("hub")
def test_a_hub_that_never_answers_costs_seconds(project: Project) -> None:
    first = describe(project)
    project.environment["HF_HUB_ETAG_TIMEOUT"] = "1"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        project.environment["HF_ENDPOINT"] = f"http://127.0.0.1:{silent.getsockname()[1]}"
        begun = time.monotonic()
        other = describe(project, "v2")
        assert describe(project).stdout == first.stdout
        assert time.monotonic() - begun < 20
    assert other.code == 8, other
    assert "the hub cannot be reached; try again" in other.stderr


def test_a_branch_that_moved_is_read_anew_and_a_commit_is_asked_for_once(project: Project, hub: Hub) -> None:
    assert describe(project, COMMIT).code == 0
    repository = hub.repositories[MODEL]
    repository.commit = COMMIT[::-1]
    repository.files[VAE] = weight_file({})
    moved = describe(project)
    assert moved.code == 0, moved
    assert json.loads(moved.stdout)[2]["vae"][0] == {}

    hub.requests = 0
    pinned = describe(project, COMMIT)
    assert pinned.code == 0, pinned
    assert json.loads(pinned.stdout)[2]["vae"][0] != {}
    assert hub.requests == 0


def test_a_damaged_cache_is_as_none(project: Project, hub: Hub) -> None:
    first = describe(project)
    fetched = sorted(hub.downloads)
    kept = [path for path in (project.folder / "cache" / "headers").rglob("*") if path.is_file()]
    assert len(kept) == len(fetched) + 2, "the listing by its branch and by its commit"
    for n, path in enumerate(kept):
        data = path.read_bytes()
        path.write_bytes((data[:-1], data[:50], b"", data.replace(b"B", b"F"))[n % 4])
    hub.downloads.clear()
    assert describe(project).stdout == first.stdout
    assert set(hub.downloads) <= set(fetched)
    assert len(hub.downloads) > len(fetched) // 2


@pytest.mark.parametrize("all_of_it", [True, False])
def test_what_lies_in_the_hubs_cache_is_read_there(project: Project, hub: Hub, all_of_it: bool) -> None:
    code = "import sys, huggingface_hub; huggingface_hub.snapshot_download(sys.argv[1], allow_patterns=sys.argv[2:])"
    wanted = ["model_index.json", "*/*"] if all_of_it else ["transformer/*-00001-*", "vae/*"]
    project.environment["HF_HUB_DISABLE_XET"] = "1"
    subprocess.run(
        [sys.executable, "-c", code, MODEL, *wanted], env=project.environment, check=True, timeout=100
    )
    there = {name for name, _ in hub.downloads}
    assert any(name.startswith(SHARD) for name in there)
    hub.downloads.clear()
    hub.requests = 0
    outcome = describe(project)
    assert outcome.code == 0, outcome
    assert not there & {name for name, _ in hub.downloads}
    assert (hub.requests == 0) == all_of_it


def test_a_size_that_the_hub_does_not_name(project: Project, hub: Hub, checkpoint: Path) -> None:
    repository = hub.repositories[MODEL]
    repository.claimed = dict.fromkeys(repository.files, None)
    outcome = describe(project)
    assert outcome.code == 0, outcome
    assert json.loads(outcome.stdout) == opened(checkpoint)


def test_who_was_let_in_is_reported_and_the_token_goes_nowhere_else(project: Project, hub: Hub) -> None:
    repository = hub.repositories[MODEL]
    repository.gated = repository.elsewhere = True
    project.environment["HF_TOKEN"] = "hf_let_me_in"
    outcome = describe(project)
    assert outcome.code == 0, outcome
    kept = [path for path in project.folder.rglob("*") if path.is_file()]
    assert any(path.parts[-3:-1] == ("headers", "some-lab--tiny-flux") for path in kept)
    assert not any(b"hf_let_me_in" in path.read_bytes() for path in kept)


def test_ctrl_c_ends_it_at_once(project: Project, hub: Hub) -> None:
    hub.repositories[MODEL].stalled = True
    process = start(project, "describe", MODEL, "")
    wait_until(lambda: hub.downloads, 30, "headers are being read")
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)  # the download itself has no end
    assert process.returncode != 0
    assert stderr.strip().endswith("KeyboardInterrupt")
    hub.stopped.set()
