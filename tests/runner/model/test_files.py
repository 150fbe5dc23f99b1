"""Model folders that are missing, cut off, damaged or pickled: exit 8, before anything is written."""

from __future__ import annotations

import json
import shutil
import struct
from typing import TYPE_CHECKING

import pytest
from checkpoints import DEMO

from runner.api import Component
from runner.files.header import HeaderError, parse_header, read_header
from runner.model.files import open_component
from runner.model.fingerprint import fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from project import Project

MANIFEST = """
version = 1
name = "local"
[model]
source = "./model"
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
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:%064d\nsize 167666902\n" % 7
WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
INDEX = "transformer/diffusion_pytorch_model.safetensors.index.json"


def remove(name: str) -> Callable[[Path], object]:
    def act(model: Path) -> None:
        path = model / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return act


def write(name: str, data: bytes) -> Callable[[Path], object]:
    return lambda model: (model / name).write_bytes(data)


def empty_folder(model: Path) -> None:
    for path in (model / "tokenizer").iterdir():
        path.unlink()


def cut(name: str, to: int) -> Callable[[Path], object]:
    def act(model: Path) -> None:
        with (model / name).open("r+b") as file:
            file.truncate(to)

    return act


def pickled(model: Path) -> None:
    (model / WEIGHTS).rename(model / "transformer/diffusion_pytorch_model.bin")


def dangling(model: Path) -> None:
    (model / "tokenizer/vocab.json").unlink()
    (model / "tokenizer/vocab.json").symlink_to("gone")


def renamed(model: Path) -> None:
    (model / WEIGHTS).rename(model / "transformer/flux1-dev.safetensors")


def shard_missing(model: Path) -> None:
    shard = "diffusion_pytorch_model-00002-of-00002.safetensors"
    (model / INDEX).write_text(json.dumps({"weight_map": {"x": shard}}))


def header(table: object, data: bytes = b"") -> bytes:
    text = json.dumps(table).encode()
    return struct.pack("<Q", len(text)) + text + data


CASES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (shutil.rmtree, "there is no model folder"),
    "no component": (remove("vae"), "has no folder 'vae'"),
    "no weights": (remove(WEIGHTS), "has a config.json and no weights"),
    "empty component": (
        empty_folder,
        "holds no file that 'tokenizer' could be loaded from",
    ),
    "pickled": (pickled, "holds pickled weights only (diffusion_pytorch_model.bin)"),
    "cut off": (cut(WEIGHTS, 100_000), "is damaged: it is cut off: 100000 bytes where the header counts"),
    "cut in the header": (cut(WEIGHTS, 100), "its header reaches past its end"),
    "empty file": (cut(WEIGHTS, 0), "0 bytes long, too short"),
    "no safetensors": (write(WEIGHTS, b"<html>not found</html>" * 9), "header reaches past its end"),
    "huge header": (write(WEIGHTS, b"\xff" * 64), "header reaches past its end"),
    "header no json": (write(WEIGHTS, struct.pack("<Q", 4) + b"{{{{"), "not JSON"),
    "header a list": (write(WEIGHTS, header([])), "not a table"),
    "deep header": (write(WEIGHTS, struct.pack("<Q", 50_000) + b"[" * 50_000), "not JSON"),
    "longer than its header": (
        write(WEIGHTS, header({"a": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}}, b"abc")),
        "longer than its header says",
    ),
    "overlap": (
        write(
            WEIGHTS,
            header(
                {
                    "a": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]},
                    "b": {"dtype": "U8", "shape": [2], "data_offsets": [1, 3]},
                },
                b"abc",
            ),
        ),
        "overlap or leave gaps",
    ),
    "shape does not fit": (
        write(WEIGHTS, header({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, b"abcd")),
        "the entry of 'a' does not fit its type",
    ),
    "negative offsets": (
        write(WEIGHTS, header({"a": {"dtype": "U8", "shape": [-1], "data_offsets": [0, -1]}})),
        "does not fit its type",
    ),
    "type that is not read": (
        write(WEIGHTS, header({"a": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}}, b"a")),
        "cannot be loaded: it holds 'a' as 'F4', which is not read here",
    ),
    "type that nobody knows": (
        write(WEIGHTS, header({"a": {"dtype": "F6_E2M3", "shape": [4], "data_offsets": [0, 3]}}, b"abc")),
        "cannot be loaded: it holds 'a' as 'F6_E2M3'",
    ),
    "pointer of git-lfs": (
        write(WEIGHTS, POINTER),
        "is a git-lfs pointer, not the file itself: run `git",
    ),
    "pointer for a config": (write("vae/config.json", POINTER), "vae/config.json is a git-lfs pointer"),
    "pointer for an index": (write(INDEX, POINTER), "index.json is a git-lfs pointer"),
    "pointer for a tokenizer": (
        write("tokenizer_2/spiece.model", POINTER),
        "spiece.model is a git-lfs pointer",
    ),
    "pointer for a vocabulary": (
        write("tokenizer/merges.txt", POINTER),
        "merges.txt is a git-lfs pointer",
    ),
    "empty tokenizer": (cut("tokenizer_2/tokenizer.json", 0), "tokenizer.json is damaged: it is empty"),
    "another program's names": (
        renamed,
        "has flux1-dev.safetensors, and 'diffusers:FluxTransformer2DModel' loads diffusion_pytorch_model",
    ),
    "dangling link": (
        dangling,
        "vocab.json cannot be read: No such file",
    ),
    "missing shard": (
        shard_missing,
        "names diffusion_pytorch_model-00002-of-00002.safetensors, which is not",
    ),
    "index no json": (write(INDEX, b"{"), "is damaged: not a JSON table"),
    "index without map": (write(INDEX, b"{}"), "has no weight_map"),
    "no vae config": (remove("vae/config.json"), "vae/config.json is missing"),
}


@pytest.fixture
def local(project: Project) -> Project:
    shutil.copytree(DEMO, project.folder / "model")
    project.write("local.toml", MANIFEST)
    return project


@pytest.mark.parametrize("case", CASES)
def test_a_broken_model_is_exit_8(local: Project, case: str) -> None:
    damage, words = CASES[case]
    damage(local.folder / "model")
    before = local.files()
    for command in ("validate", "plan", "run"):
        outcome = local.invoke(command, "local.toml")
        assert outcome.code == 8, outcome
        assert words in outcome.stderr, outcome
        assert outcome.stderr.startswith("local.toml:4:10: "), outcome
        assert "Traceback" not in outcome.stderr
    assert local.files() == before


def test_what_is_wrong_with_several_models_is_reported_at_once(local: Project) -> None:
    stage_model = '[stage.model]\nsource = "./{}"\n[[stage]]\nname = "decode"'
    local.write("local.toml", MANIFEST.replace('[[stage]]\nname = "decode"', stage_model.format("nowhere")))
    (local.folder / "model/vae/config.json").write_bytes(POINTER)
    outcome = local.invoke("validate", "local.toml", "--json")
    assert outcome.code == 8, outcome
    problems = json.loads(outcome.stdout)["problems"]
    assert [(p["line"], "nowhere" in p["message"]) for p in problems] == [(14, True), (4, False)][::-1]


def test_items_and_manifests_that_git_lfs_left_out(local: Project) -> None:
    (local.folder / "prompts.csv").write_bytes(POINTER)
    outcome = local.invoke("validate", "local.toml", "--set", "batch.file=prompts.csv")
    assert outcome.code == 3, outcome
    assert "prompts.csv: is a git-lfs pointer, not the file itself: run `git lfs pull`" in outcome.stderr
    (local.folder / "picture.png").write_bytes(POINTER)
    outcome = local.invoke("reproduce", "picture.png")
    assert "picture.png is a pointer of git-lfs" in outcome.stderr


def test_a_packaged_model_that_is_not_there(local: Project) -> None:
    outcome = local.invoke("validate", "local.toml", "--set", "model.source=plugin:flux/nothing")
    assert outcome.code == 8
    assert "the plugin 'flux' (from runner-flux) packages no model 'nothing'" in outcome.stderr
    outcome = local.invoke("validate", "local.toml", "--set", "model.source=plugin:flxu/demo")
    assert outcome.code == 4
    assert "did you mean 'flux'?" in outcome.stderr


def test_a_model_that_was_never_hashed_is_pending_in_a_plan(local: Project) -> None:
    outcome = local.invoke("plan", "local.toml", "--json")
    assert outcome.code == 0, outcome
    stages = json.loads(outcome.stdout)["stages"]
    assert [s["todo"] for s in stages] == ["pending"] * 3
    assert not (local.folder / "cache/hashes.json").exists()
    transformer = stages[1]["components"][0]
    assert transformer["name"] == "transformer"
    assert transformer["dtypes"] == ["BF16"]
    assert transformer["bytes"] == 2 * transformer["parameters"]


def test_fingerprints_tell_contents_apart_and_nothing_else(
    local: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNNER_CACHE", str(local.folder / "cache"))
    model, component = local.folder / "model", Component("vae", "diffusers:AutoencoderKL")

    def now(folder: Path = model, *, hash_missing: bool = True) -> str | None:
        return fingerprint([open_component(folder, component)], hash_missing=hash_missing)

    assert now(hash_missing=False) is None
    first = now()
    assert now(hash_missing=False) == first
    moved = shutil.copytree(model, local.folder / "moved")
    assert now(moved) == first
    with (model / "vae/diffusion_pytorch_model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))
    assert now() != first


def test_headers_are_read_exactly() -> None:
    read = read_header(DEMO / WEIGHTS)
    assert read.size == (DEMO / WEIGHTS).stat().st_size
    info = read.tensors["x_embedder.weight"]
    assert (info.dtype, info.shape, info.end - info.start) == ("BF16", (160, 64), 160 * 64 * 2)
    with pytest.raises(HeaderError, match="metadata must be strings"):
        parse_header(b'{"__metadata__": {"a": 1}}')
