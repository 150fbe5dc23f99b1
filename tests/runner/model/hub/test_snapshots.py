"""What of the hub is known without asking it, and its client's work and errors, in this process."""

from __future__ import annotations

import shutil
import threading
from collections import namedtuple
from typing import TYPE_CHECKING, Any

import pytest
from checkpoints import DEMO
from hub import COMMIT

from runner.api import Component
from runner.errors import ModelError, RunnerError, StorageError
from runner.manifest.schema import ModelSource
from runner.model.hub import snapshots
from runner.model.hub.errors import explained
from runner.model.hub.listing import Listing
from runner.model.hub.needed import needed
from runner.model.hub.snapshots import SPARE, cached
from runner.model.hub.threads import in_threads

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SOURCE = ModelSource(source="some-lab/tiny-flux")
COMPONENTS = (
    Component("vae", "diffusers:AutoencoderKL"),
    Component("tokenizer", "transformers:CLIPTokenizer"),
)


@pytest.fixture
def snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model in the hub's cache, as its client leaves it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "models--some-lab--tiny-flux"
    snapshot = folder / "snapshots" / COMMIT
    for name in ("vae", "tokenizer"):
        shutil.copytree(DEMO / name, snapshot / name)
    (folder / "refs").mkdir()
    (folder / "refs/main").write_text(COMMIT)
    return snapshot


def test_what_is_whole_is_found_without_the_network(snapshot: Path) -> None:
    assert cached(SOURCE, COMPONENTS) == snapshot
    assert cached(ModelSource(source="some-lab/other"), COMPONENTS) is None
    assert cached(ModelSource(source="some-lab/tiny-flux", revision="v9"), COMPONENTS) is None
    assert cached(ModelSource(source="some-lab/tiny-flux", revision=COMMIT), COMPONENTS) == snapshot


@pytest.mark.parametrize("gone", ["vae/diffusion_pytorch_model.safetensors", "vae", "tokenizer"])
def test_an_incomplete_snapshot_is_not_here(snapshot: Path, gone: str) -> None:
    """As after a download that broke off, or a clean-up by hand."""
    path = snapshot / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert cached(SOURCE, COMPONENTS) is None


def test_a_cut_file_is_not_here(snapshot: Path) -> None:
    with (snapshot / "vae/diffusion_pytorch_model.safetensors").open("r+b") as file:
        file.truncate(1000)
    assert cached(SOURCE, COMPONENTS) is None


def test_a_download_leaves_room_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "not/there/yet"))
    usage = namedtuple("usage", "total used free")  # noqa: PYI024
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1 << 50, 0, SPARE + 1000))
    snapshots._check_room(SOURCE, 1000)
    with pytest.raises(
        StorageError, match=r"model 'some-lab/tiny-flux' needs 1001 B in .*, and 1\.00 GiB are free there"
    ):
        snapshots._check_room(SOURCE, 1001)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1 << 50, 0, 0))
    snapshots._check_room(SOURCE, 0)  # nothing is fetched


def test_what_a_component_needs_of_a_repository() -> None:
    vae = Component("vae", "x:Y")
    config, tokenizer = Component("vae", "x:Y", config_only=True), Component("t", "x:Y")

    def of(component: Component, *names: str) -> list[str]:
        return needed(SOURCE, [component], Listing(COMMIT, dict.fromkeys(names)))

    whole = ["vae/config.json", "vae/model.safetensors"]
    assert of(vae, *whole, "README.md") == whole
    with pytest.raises(ModelError, match=r"folder 'vae', holds pickled weights only \(model.bin\)"):
        of(vae, "vae/config.json", "vae/model.bin")
    with pytest.raises(ModelError, match="has no files of the component 'vae'"):
        of(vae, "README.md")
    with pytest.raises(ModelError, match=r"folder 'vae', has a config.json and no weights"):
        of(vae, "vae/config.json")
    assert of(config, "vae/config.json", "vae/model.bin") == ["vae/config.json"]
    assert of(tokenizer, "t/vocab.json") == ["t/vocab.json"]
    both = Listing(COMMIT, dict.fromkeys([*whole, "t/a.txt", "model_index.json"]))
    assert needed(SOURCE, [vae, tokenizer], both) == ["model_index.json", "t/a.txt", *whole]


def test_work_in_threads_comes_back_in_its_order() -> None:
    second = threading.Event()

    def first() -> int:
        assert second.wait(30)
        return 1

    def after() -> int:
        second.set()
        return 2

    assert in_threads([first, after, lambda: 3], 2) == [1, 2, 3]
    assert in_threads([]) == []


def test_the_first_error_ends_the_work() -> None:
    """What a thread has begun may end; nothing else is begun."""
    reported = threading.Event()
    done: list[int] = []
    before = set(threading.enumerate())

    def failing() -> None:
        raise KeyError("no")

    with pytest.raises(KeyError):
        in_threads([failing, lambda: reported.wait(30), lambda: done.append(1)])
    reported.set()
    for thread in set(threading.enumerate()) - before:
        thread.join()
    assert done == []


def test_no_answer_is_not_waited_for_without_an_end() -> None:
    never = threading.Event()
    try:
        with pytest.raises(TimeoutError, match=r"no answer within 0\.05 s"):
            in_threads([never.wait], timeout=0.05)
    finally:
        never.set()


def client_error(name: str) -> Exception:
    from types import SimpleNamespace

    from huggingface_hub import errors

    kind: Any = getattr(errors, name)
    error: Exception = kind.__new__(kind)
    error.args = ("reported",)
    error.response = SimpleNamespace(headers={})  # type: ignore[attr-defined]
    return error


class ConnectError(Exception):
    """As the client's libraries name theirs."""


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (lambda: client_error("GatedRepoError"), ModelError, "is gated: accept its licence"),
        (lambda: client_error("RevisionNotFoundError"), ModelError, "the model has no revision 'v9'"),
        (lambda: client_error("RepositoryNotFoundError"), ModelError, "was not found: check the name"),
        (lambda: client_error("OfflineModeIsEnabled"), ModelError, "HF_HUB_OFFLINE forbids fetching it"),
        (lambda: client_error("LocalEntryNotFoundError"), ModelError, "the hub cannot be reached"),
        (ConnectError, ModelError, "the hub cannot be reached"),
        (TimeoutError, ModelError, "the hub cannot be reached"),
        (lambda: OSError(28, "No space left on device"), StorageError, "cannot store .*: No space left"),
        (
            lambda: ValueError("odd\nmore"),
            ModelError,
            r"could not be fetched completely: ValueError: odd \(run it again",
        ),
        (ValueError, ModelError, r"could not be fetched completely: ValueError:  \(run it again"),
    ],
)
def test_the_clients_errors_in_the_users_words(
    make: Callable[[], Exception], kind: type[RunnerError], words: str
) -> None:
    reported = explained(ModelSource(source="some-lab/tiny-flux", revision="v9"), make())
    assert type(reported) is kind
    with pytest.raises(kind, match=words):
        raise reported
    assert str(reported).count("model 'some-lab/tiny-flux' at 'v9'") == 1
