"""Hub models that cannot be described: exit 8 and what to do, for kilobytes too."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest
from checkpoints import make_flux
from described import MODEL, VAE, call, describe, long_header
from hub import Hub, Repository, Sparse

from runner.files.header import HeaderError
from runner.model.hub.contents import FIRST, _head, _parsed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from project import Project

CONFIG = "vae/config.json"
SHARD = "transformer/diffusion_pytorch_model-0000"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_flux(tmp_path_factory.mktemp("hub") / "flux")


@pytest.fixture
def hub(project: Project, checkpoint: Path) -> Iterator[Hub]:
    with Hub({MODEL: Repository.of(checkpoint)}).served() as served:
        project.environment["HF_ENDPOINT"] = served.url
        yield served


def spoil(repository: Repository, how: str) -> None:
    files = repository.files
    if how == "gated":
        repository.gated = True
    elif how == "pickled":
        files["vae/diffusion_pytorch_model.bin"] = files.pop(VAE)
    elif how == "lacking":
        for name in [name for name in files if name.startswith("vae/")]:
            del files[name]


@pytest.mark.parametrize(
    ("how", "source", "revision", "words"),
    [
        ("gated", MODEL, "main", "is gated: accept its licence"),
        ("pickled", MODEL, "main", "pickled weights only (diffusion_pytorch_model.bin)"),
        ("lacking", MODEL, "main", "has no files of the component 'vae'"),
        ("", "some-lab/no-flux", "main", "was not found: check the name"),
        ("", MODEL, "v9", "the model has no revision 'v9'"),
    ],
)
def test_what_cannot_be_had_is_reported_as_when_it_is_fetched(
    project: Project, hub: Hub, how: str, source: str, revision: str, words: str
) -> None:
    spoil(hub.repositories[MODEL], how)
    outcome = describe(project, revision, source)
    assert outcome.code == 8, outcome
    assert words in outcome.stderr
    fetched = call(project, "download", revision, source)
    assert (fetched.code, fetched.stderr) == (outcome.code, outcome.stderr)


DAMAGED = [
    (VAE, Sparse(struct.pack("<Q", 1 << 63), 1 << 40), "its header reaches past its end"),
    (VAE, Sparse(struct.pack("<Q", 100_000_001), 1 << 40), "its header is 100000001 bytes long, and none"),
    (VAE, struct.pack("<Q", 5_000_000) + b"{}", "its header reaches past its end"),
    (VAE, b"\2\0\0\0\0\0\0\0{", "its header reaches past its end"),
    (VAE, b"", "it is 0 bytes long, too short"),
    (VAE, struct.pack("<Q", 2) + b"}{", "its header is damaged: not JSON"),
    (VAE, Sparse(long_header(3)[0], 1 << 40), "it is longer than its header says"),
    (VAE, Sparse(long_header(3)[0], long_header(3)[1] - 1), "it is cut off"),
    (CONFIG, b"", "not a JSON table"),
    (CONFIG, b"{", "not a JSON table"),
    (CONFIG, b"[]", "not a JSON table"),
    (CONFIG, b"[" * 100_000, "not a JSON table"),
    (CONFIG, Sparse(b"{}", 1 << 40), "too long for a config"),
]


@pytest.mark.parametrize(("name", "data", "words"), DAMAGED)
def test_a_hostile_or_damaged_file(name: str, data: bytes | Sparse, words: str) -> None:
    read = 0

    def reader(start: int, stop: int) -> bytes:
        nonlocal read
        read += stop - start
        return data[start:stop]

    with pytest.raises(HeaderError, match=words):
        _parsed(name, _head(reader, name, len(data)), len(data))
    assert read <= FIRST


@pytest.mark.parametrize(("name", "data", "words"), [DAMAGED[0], DAMAGED[4], DAMAGED[6], DAMAGED[11]])
def test_a_hostile_or_damaged_file_on_the_hub(
    project: Project, hub: Hub, name: str, data: bytes | Sparse, words: str
) -> None:
    hub.repositories[MODEL].files[name] = data
    outcome = describe(project)
    assert outcome.code == 8, outcome
    assert f"model '{MODEL}' has a damaged file, {name}: " in outcome.stderr
    assert words in outcome.stderr
    assert hub.sent[name] <= FIRST


def test_a_shard_that_is_not_there(project: Project, hub: Hub) -> None:
    files = hub.repositories[MODEL].files
    shards = [name for name in files if name.startswith(SHARD)]
    del files[shards[-1]]
    outcome = describe(project)
    assert outcome.code == 8, outcome
    assert f"names {shards[-1].removeprefix('transformer/')}, which is not there" in outcome.stderr
    assert not any(name.startswith(SHARD) for name, _ in hub.downloads)


def test_a_file_that_breaks_off_costs_what_had_not_come(project: Project, hub: Hub) -> None:
    hub.repositories[MODEL].cuts[VAE] = [1000]
    outcome = describe(project)
    assert outcome.code == 8, outcome
    assert "could not be fetched completely" in outcome.stderr
    assert describe(project).code == 0
    assert sum(name == VAE for name, _ in hub.downloads) == 2
    assert len(hub.downloads) == len(set(hub.downloads)) + 1
