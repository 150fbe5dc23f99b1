"""``[run] publish`` into S3: the real client against a server on this machine."""

from __future__ import annotations

import secrets
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from project import Project

pytest.importorskip("moto", reason="moto, a server that speaks S3's protocol, is not installed")
pytest.importorskip("s3fs", reason="s3fs, which `stage-runner[publish]` brings, is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")  # of the server's libraries


@pytest.fixture
def store(toy: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A bucket, which runs of the project find."""
    import fsspec
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    bucket = f"bucket-{secrets.token_hex(4)}"  # the server's buckets are this process's
    url = f"http://127.0.0.1:{server.get_host_and_port()[1]}"
    access = {"AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
    toy.environment |= access
    for name, value in access.items():
        monkeypatch.setenv(name, value)
    found = fsspec.filesystem("s3", skip_instance_cache=True, use_listings_cache=False)
    found.mkdir(bucket)
    yield Store(found, bucket)
    server.stop()


@dataclass
class Store:
    """A bucket on the server."""

    fs: Any
    bucket: str

    @property
    def names(self) -> set[str]:
        base = f"{self.bucket}/prefix/toy/"
        return {name.removeprefix(base) for name in self.fs.find(base)}


def write(toy: Project, bucket: str) -> None:
    publish = f'[run]\npublish = "s3://{bucket}/prefix"\npublish_handoffs = true\n'
    manifest = (toy.folder / "toy.toml").read_text()
    toy.write("toy.toml", manifest.replace("[[stage]]", f"{publish}[[stage]]", 1))


def test_outputs_are_put_there_and_taken_from_there(toy: Project, store: Store) -> None:
    write(toy, store.bucket)
    first = toy.runner("run", "toy.toml", "--json")
    assert first.code == 0, first
    outputs, handoffs = toy.outputs("toy"), (toy.folder / "runs/toy/handoff").rglob("*.safetensors")
    there = {f"outputs/{name}" for name in outputs} | {f"handoff/make/{path.name}" for path in handoffs}
    assert store.names == there | {"manifest.toml"}
    shutil.rmtree(toy.folder / "runs")
    again = toy.runner("run", "toy.toml", "--json")
    assert (again.code, again.of("stage_started")) == (0, []), again
    assert toy.outputs("toy") == outputs
    # of what is not whole there, only that is made again
    victim = next(name for name in outputs if name.startswith("one") and name.endswith(".txt"))
    store.fs.pipe_file(f"{store.bucket}/prefix/toy/outputs/{victim}", b"x")
    shutil.rmtree(toy.folder / "runs")
    damaged = toy.runner("run", "toy.toml", "--json")
    assert damaged.code == 0, damaged
    assert [e["item"] for e in damaged.of("item_finished")] == ["one"]
    assert toy.outputs("toy") == outputs


def test_a_bucket_that_there_is_not_is_reported_of_before_anything_is_made(
    toy: Project, store: Store
) -> None:
    write(toy, f"not-{store.bucket}")
    outcome = toy.runner("run", "toy.toml", "--json")
    assert outcome.code == 9, outcome
    assert f"[run] publish: not-{store.bucket}/prefix/toy cannot be used: " in outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert outcome.of("stage_started") == []


def test_a_bucket_that_is_removed_in_mid_run_is_an_error(toy: Project, store: Store) -> None:
    write(toy, store.bucket)
    manifest = (toy.folder / "toy.toml").read_text()
    toy.write("toy.toml", f'{manifest}[[item]]\nid = "slow"\nprompt = "slow"\nbehave = "wait"\n')
    with toy.start("run", "toy.toml", "--json") as process:
        wait_until((toy.folder / "flags/slow").exists, 60, "the item has begun")
        store.fs.rm(store.bucket, recursive=True)
        (toy.folder / "flags/slow.go").touch()
        _, stderr = process.communicate(timeout=100)
    assert process.returncode == 9, stderr
    assert "could not be published" in stderr
    assert len([name for name in toy.outputs("toy") if name.endswith(".txt")]) == 3
