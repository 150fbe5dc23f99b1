"""``[run] publish``: what counts is put into a store, and what is there is taken from it, if it is whole."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import fsspec
import pytest
from scripted import run
from scripted_chain import MANIFEST

from runner.errors import PluginError, StorageError

if TYPE_CHECKING:
    from project import Project

URL = 'publish = "memory://bucket/prefix"\n'


@pytest.fixture
def store() -> Any:
    """A store in this process, which is empty."""
    found = fsspec.filesystem("memory")
    found.store.clear()
    yield found
    found.store.clear()


def write(chain: Project, more: str = "") -> None:
    chain.write("chain.toml", MANIFEST.replace("[[stage]]", f"[run]\n{URL}{more}[[stage]]", 1))


def names(store: Any) -> list[str]:
    """Names of what is there, beside the manifest."""
    found = sorted(name.removeprefix("/bucket/prefix/chain/") for name in store.store)
    return [name for name in found if name != "manifest.toml"]


def test_outputs_are_put_there_and_taken_from_there(chain: Project, store: Any) -> None:
    write(chain)
    assert run(chain, "chain.toml").code == 0
    outputs = chain.outputs("chain")
    assert names(store) == [f"outputs/{name}" for name in sorted(outputs)]
    shutil.rmtree(chain.folder / "runs")
    ran = run(chain, "chain.toml")
    assert (ran.code, ran.made) == (0, [])
    assert chain.outputs("chain") == outputs


def test_handoffs_are_put_there_if_that_is_asked_for(chain: Project, store: Any) -> None:
    write(chain, "publish_handoffs = true\n")
    run(chain, "chain.toml")
    handoffs = [name for name in names(store) if name.startswith("handoff/")]
    assert len(handoffs) == 4
    shutil.rmtree(chain.folder / "runs")
    ran = run(chain, "chain.toml", sets=["stage.three.with.ending=!"])
    assert ran.made == [("three", "a", "done"), ("three", "b", "done")]


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[:-1] + b"?"])
def test_what_is_not_whole_is_made_again(chain: Project, store: Any, damage: Any) -> None:
    write(chain)
    run(chain, "chain.toml")
    outputs = chain.outputs("chain")
    victim = next(name for name in store.store if name.endswith(".txt") and "/a-" in name)
    store.pipe_file(victim, damage(store.cat_file(victim)))
    shutil.rmtree(chain.folder / "runs")
    ran = run(chain, "chain.toml")
    assert [item for _, item, _ in ran.made] == ["a", "a", "a"]
    assert chain.outputs("chain") == outputs


def test_what_was_made_before_is_put_there_too(chain: Project, store: Any) -> None:
    run(chain, "chain.toml")
    assert names(store) == []
    write(chain)
    ran = run(chain, "chain.toml")
    assert (ran.code, ran.made) == (0, [])
    assert len(names(store)) == 4


def test_what_is_cut_off_there_and_whole_here_is_put_there_again(chain: Project, store: Any) -> None:
    """Not every store writes a file whole or not at all."""
    write(chain)
    run(chain, "chain.toml")
    victim = next(name for name in store.store if name.endswith(".txt"))
    whole = store.cat_file(victim)
    store.pipe_file(victim, whole[:-1])
    ran = run(chain, "chain.toml")
    assert (ran.code, ran.made) == (0, [])
    assert store.cat_file(victim) == whole


def test_a_folder_is_a_store_as_well(chain: Project) -> None:
    url = f"file://{chain.folder}/elsewhere/store"
    chain.write("chain.toml", MANIFEST.replace("[[stage]]", f'[run]\npublish = "{url}"\n[[stage]]', 1))
    assert run(chain, "chain.toml").code == 0
    found = {path.name: path.read_bytes() for path in chain.folder.glob("elsewhere/store/chain/outputs/*")}
    assert found == chain.outputs("chain")


@pytest.mark.parametrize("error", [OSError("no"), FileNotFoundError("the bucket is gone")])
def test_what_cannot_be_put_there_is_an_error_and_put_there_the_next_time(
    chain: Project, store: Any, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    write(chain)

    pipe_file = type(store).pipe_file

    def refuse(fs: Any, path: str, *given: object, **options: object) -> None:
        if "/outputs/" in path:
            raise error
        pipe_file(fs, path, *given, **options)

    with monkeypatch.context() as patch:
        patch.setattr(type(store), "pipe_file", refuse)
        ran = run(chain, "chain.toml")
    assert isinstance(ran.error, StorageError)
    assert "4 files could not be published" in str(ran.error)
    assert [e["exit_code"] for e in ran.of("run_finished")] == [9]
    assert {e["kind"] for e in ran.of("warning")} == {"not_published"}
    assert len(chain.outputs("chain")) == 4
    assert run(chain, "chain.toml").code == 0
    assert len(names(store)) == 4


def test_a_store_that_cannot_be_written_to_is_found_out_before_anything_is_made(
    chain: Project, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(chain)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("no")

    monkeypatch.setattr(type(store), "pipe_file", refuse)
    ran = run(chain, "chain.toml")
    assert isinstance(ran.error, StorageError)
    assert "/bucket/prefix/chain cannot be used: PermissionError: no" in str(ran.error)
    assert ran.made == []


def test_a_kind_of_url_that_nothing_installed_knows_is_refused_before_anything_starts(chain: Project) -> None:
    chain.write("chain.toml", MANIFEST.replace("[[stage]]", '[run]\npublish = "nope://x"\n[[stage]]', 1))
    ran = run(chain, "chain.toml")
    assert isinstance(ran.error, PluginError)
    assert "stage-runner[publish]" in str(ran.error)
    assert not (chain.folder / "runs").exists()
    chain.write("chain.toml", MANIFEST.replace("[[stage]]", '[run]\npublish = "bucket"\n[[stage]]', 1))
    outcome = chain.invoke("validate", "chain.toml")
    assert outcome.code == 3
    assert "'publish' must be a URL" in outcome.stderr
