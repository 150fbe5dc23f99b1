"""What a stage returns: refused unless it is what it declared, and written so that it counts."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load
from worker_job import item_of

from runner.api import Bundle, Bundled, File, Output, Stage, Tensor, Text
from runner.files import handoff, provenance
from runner.files.storage import write_atomically
from runner.worker import output_writer
from runner.worker.output_writer import OutputError, check_outputs, write_outputs

if TYPE_CHECKING:
    from pathlib import Path

    from runner.protocol import JobItem


def stage(*outputs: Output) -> Stage:
    return Stage("test.stage", "nowhere:start", outputs=outputs)


def write(item: JobItem, returned: Any, output: Output) -> None:
    write_outputs(
        item, check_outputs(stage(output), returned, torch.float32, None), {"key": item.key, "lineage": {}}
    )


def written(
    item: JobItem, returned: Any, *outputs: Output, save_dtype: torch.dtype | None = None
) -> handoff.Handoff:
    outputs_ = check_outputs(stage(*outputs), returned, torch.float32, save_dtype)
    write_outputs(item, outputs_, {"key": item.key, "lineage": {"s": {"params": {}}}})
    assert item.handoff is not None
    return handoff.read(item.handoff, item.key)


def tensors(found: handoff.Handoff) -> dict[str, torch.Tensor]:
    return load(found.data)


X = Tensor("x", "floating", ("C", 4))


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        ({"x": torch.tensor([[0.0, 1.0, 2.0, float("nan")]])}, "holds NaN or infinite"),
        ({"x": torch.tensor([[0.0, 1.0, 2.0, float("inf")]])}, "holds NaN or infinite"),
        ({"x": torch.tensor([[0.0, 1.0, 2.0, -float("inf")]])}, "holds NaN or infinite"),
        ({"x": torch.ones(4)}, r"has shape \(4,\)"),
        ({"x": torch.ones(2, 5)}, r"has shape \(2, 5\)"),
        ({"x": torch.ones(2, 4, dtype=torch.int64)}, "is int64, declared is floating"),
        ({"x": [1.0]}, "is list, not a tensor"),
        ({}, "did not return 'x'"),
        ({"x": None}, "did not return 'x'"),
        ({"x": torch.ones(2, 4), "y": 1}, "returned 'y', which it does not declare"),
        (torch.ones(2, 4), "returned Tensor, not a dict"),
    ],
)
def test_what_is_refused(tmp_path: Path, returned: Any, words: str) -> None:
    item = item_of(tmp_path, "a")
    with pytest.raises(OutputError, match=words):
        written(item, returned, X)
    assert not list(tmp_path.iterdir())


def test_an_overflow_in_what_is_saved_is_refused(tmp_path: Path) -> None:
    """Finite as computed, infinite as handed off."""
    with pytest.raises(OutputError, match="holds NaN or infinite values as float16"):
        written(item_of(tmp_path, "a"), {"x": torch.full((1, 4), 1e6)}, X, save_dtype=torch.float16)


def test_a_declared_dtype_is_held_to(tmp_path: Path) -> None:
    item = item_of(tmp_path, "a")
    for declared, dtype, right in (
        ("bfloat16", torch.bfloat16, True),
        ("bfloat16", torch.float32, False),
        ("integer", torch.uint8, True),
        ("integer", torch.float32, False),
        ("any", torch.bool, True),
    ):
        value = {"x": torch.ones(1, 4).to(dtype)}
        if right:
            written(item, value, Tensor("x", declared))
        else:
            with pytest.raises(OutputError, match="declared is"):
                written(item, value, Tensor("x", declared))


def test_what_is_saved_in_another_dtype(tmp_path: Path) -> None:
    given = {"x": torch.ones(1, 4), "ids": torch.arange(3)}
    found = written(item_of(tmp_path, "a"), given, X, Tensor("ids", "integer"), save_dtype=torch.bfloat16)
    assert {name: tensor.dtype for name, tensor in tensors(found).items()} == {
        "x": torch.bfloat16,
        "ids": torch.int64,
    }


def test_tensors_that_share_memory_and_strided_ones(tmp_path: Path) -> None:
    base = torch.arange(8, dtype=torch.float32).reshape(2, 4)
    given = {"x": base, "part": base[1], "turned": torch.rand(4, 2).T}
    found = tensors(written(item_of(tmp_path, "a"), given, X, Tensor("part"), Tensor("turned")))
    assert all(torch.equal(found[name], given[name]) for name in given)


def test_optional_outputs_may_be_left_out(tmp_path: Path) -> None:
    item = item_of(tmp_path, "a")
    assert list(tensors(written(item, {"x": torch.ones(1, 4)}, X, Tensor("y", optional=True)))) == ["x"]


B = Bundle("b")


def test_a_bundle(tmp_path: Path) -> None:
    """Any tensors, masks with infinity too, and JSON; those in the stage's dtype are cast."""
    shared = torch.arange(8.0).reshape(2, 4)
    named = {
        "x": shared,
        "row": shared[0],
        "mask": torch.tensor([0.0, -float("inf")]).to(torch.bfloat16),
        "state": torch.tensor([1, 2], dtype=torch.uint8),
        "double": torch.ones(1, dtype=torch.float64),
    }
    found = written(
        item_of(tmp_path, "a"), {"b": Bundled(named, {"n": [1, None]})}, B, save_dtype=torch.float16
    )
    assert found.bundles == {"b": {"n": [1, None]}}
    dtypes = {name.removeprefix("b/"): tensor.dtype for name, tensor in tensors(found).items()}
    assert dtypes == {
        "x": torch.float16,
        "row": torch.float16,
        "mask": torch.bfloat16,
        "state": torch.uint8,
        "double": torch.float64,
    }
    assert torch.equal(tensors(found)["b/row"], shared[0].half())


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"x": torch.ones(1)}, "is dict, not a Bundled"),
        (Bundled({"x": [1.0]}), "has list as 'x', not a tensor"),
        (Bundled({"x": torch.tensor([float("nan")])}), "'x' of 'b' holds NaN as float32"),
        (Bundled({}, {"a": torch.ones(1)}), "the values of 'b' are not JSON"),
        (Bundled({}, float("nan")), "the values of 'b' are not JSON"),
    ],
)
def test_what_a_bundle_may_not_hold(tmp_path: Path, value: Any, words: str) -> None:
    with pytest.raises(OutputError, match=words):
        written(item_of(tmp_path, "a"), {"b": value}, B)
    assert not list(tmp_path.iterdir())


def test_texts(tmp_path: Path) -> None:
    item = item_of(tmp_path, "a")
    assert written(item, {"t": "ü"}, Text("t")).text == {"t": "ü"}
    for wrong, words in ((b"bytes", "not a string"), ("ü" * (1 << 19) + "x", "longer than 1 MiB")):
        with pytest.raises(OutputError, match=words):
            written(item, {"t": wrong}, Text("t"))
    written(item, {"t": "ü" * (1 << 19)}, Text("t"))


def test_a_last_stages_text_is_a_file_for_people(tmp_path: Path) -> None:
    item = item_of(tmp_path, "a", files={"t": tmp_path / "outputs/a.txt"}, handoff=None)
    write(item, {"t": "ü"}, Text("t"))
    assert (tmp_path / "outputs/a.txt").read_text(encoding="utf-8") == "ü"
    assert provenance.has_key(tmp_path / "outputs/a.txt", item.key)


def test_a_file_beside_its_handoff_is_recorded_there(tmp_path: Path) -> None:
    item = item_of(tmp_path, "a")
    assert item.handoff is not None
    beside = item.handoff.with_name(f"{item.key}.sound.wav")
    found = written(replace(item, files={"sound": beside}), {"sound": b"la"}, File("sound", ".wav"))
    assert found.files == {"sound": handoff.record_of_file(beside.name, b"la")}
    assert beside.read_bytes() == b"la"
    assert not provenance.sidecar(beside).exists()


def test_files_are_there_before_the_handoff_that_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suffixes: list[str] = []

    def noted(path: Path, data: bytes) -> None:
        suffixes.append(path.suffix)
        write_atomically(path, data)

    monkeypatch.setattr(output_writer, "write_atomically", noted)
    item = item_of(tmp_path, "a")
    assert item.handoff is not None
    beside = {"sound": item.handoff.with_name(f"{item.key}.sound.wav")}
    written(replace(item, files=beside), {"sound": b"la"}, File("sound", ".wav"))
    assert suffixes == [".wav", ".safetensors"]


def test_files_are_bytes_paths_or_pictures(tmp_path: Path) -> None:
    item = item_of(tmp_path, "a", files={"f": tmp_path / "a.jpg"}, handoff=None)
    (tmp_path / "made").write_bytes(b"made elsewhere")
    picture = Image.new("RGB", (2, 2), "red")
    for value, start in ((b"b", b"b"), (tmp_path / "made", b"made"), (picture, b"\xff\xd8")):
        write(item, {"f": value}, File("f", ".jpg"))
        assert (tmp_path / "a.jpg").read_bytes().startswith(start)
    with pytest.raises(OutputError, match="is int, not bytes, a path or an image"):
        write(item, {"f": 3}, File("f", ".jpg"))


def test_metadata_say_what_it_is(tmp_path: Path) -> None:
    item = item_of(tmp_path, "a")
    found = written(item, {"x": torch.ones(1, 4)}, X)
    assert found.header.metadata["item"] == "a"
    assert json.loads(found.header.metadata["lineage"]) == {"s": {"params": {}}}
