"""An item's inputs, read from the hand-offs of earlier stages, as its stage receives them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import save
from worker_job import STAGE, item_of, job_of, run

from runner.api import Bundle, File, Tensor, Text
from runner.files import handoff
from runner.manifest.params import RawParams
from runner.protocol import Input

if TYPE_CHECKING:
    from pathlib import Path

    from runner.api import Item


def x(item: Item) -> dict[str, torch.Tensor]:
    return {"x": torch.ones(3)}


def upstream(folder: Path, values: Any = None, **tensors: torch.Tensor) -> Path:
    """A hand-off of the stage before, with a text and a file; ``values`` are those of bundles."""
    path = folder / "earlier.safetensors"
    sound = folder / "earlier.sound.wav"
    sound.write_bytes(b"sound")
    metadata = {
        "key": "earlier",
        "text": '{"prompt": "from upstream", "aside": "heard"}',
        "files": f'{{"sound": {{"name": "{sound.name}", "sha256": "{handoff.record_of_file("", b"sound")["sha256"]}"}}}}',
        "bundles": json.dumps(values or {}),
        "lineage": '{"earlier": {"params": {"prompt": "a"}}}',
    }
    path.write_bytes(handoff.seal(save(tensors), metadata))
    return path


def test_a_bundle_is_the_items_own(tmp_path: Path) -> None:
    made = {"made/a": torch.arange(5.0), "made/b/c": torch.arange(7.0), "made": torch.ones(1)}
    path = upstream(tmp_path, values={"made": {"n": 3}}, **made)
    seen: list[Any] = []

    def one(item: Item) -> dict[str, torch.Tensor]:
        bundle = item.inputs["made"]
        seen.append((bundle.values, {name: tensor.tolist() for name, tensor in bundle.tensors.items()}))
        for tensor in bundle.tensors.values():
            assert tensor.data_ptr() % 64 == 0
            tensor.zero_()
        return x(item)

    stage = replace(STAGE, inputs=(Bundle("made"),))
    items = [item_of(tmp_path, n, inputs={"made": Input(path, "earlier", "made")}) for n in "ab"]
    reports = run(job_of(items, stage=stage), one)
    assert [e["status"] for e in reports.of("item_finished")] == ["done", "done"], reports
    expected = ({"n": 3}, {"a": list(range(5)), "b/c": list(range(7))})
    assert seen == [expected, expected]


def test_inputs_lie_at_torchs_own_boundaries_and_are_the_items_own(tmp_path: Path) -> None:
    """At others, results differ in low bits; and what one item writes into them is not for the next one."""
    tensors = {f"t{n}": torch.arange(n + 5, dtype=torch.float32) for n in range(4)}
    path = upstream(tmp_path, **tensors)
    wired = {name: Input(path, "earlier", name) for name in tensors}
    stage = replace(STAGE, inputs=tuple(Tensor(name) for name in tensors))
    seen: list[bool] = []

    def one(item: Item) -> dict[str, torch.Tensor]:
        for name, tensor in item.inputs.items():
            assert tensor.data_ptr() % 64 == 0, name
            seen.append(torch.equal(tensor, tensors[name]))
            tensor.zero_()
        return x(item)

    reports = run(job_of([item_of(tmp_path, n, inputs=wired) for n in "ab"], stage=stage), one)
    assert [e["status"] for e in reports.of("item_finished")] == ["done", "done"], reports
    assert seen == [True] * 8


def test_texts_files_and_what_was_left_out(tmp_path: Path) -> None:
    path = upstream(tmp_path, x=torch.ones(2))
    wired = {
        "prompt": Input(path, "earlier", "prompt"),
        "aside": Input(path, "earlier", "aside"),
        "sound": Input(path, "earlier", "sound", tmp_path / "earlier.sound.wav"),
        "silence": Input(path, "earlier", "silence", tmp_path / "earlier.silence.wav"),
        "extra": Input(path, "earlier", "extra"),
    }
    optional = (File("silence", ".wav", optional=True), Tensor("extra", optional=True))
    inputs = (Text("aside"), File("sound", ".wav"), *optional)
    stage = replace(STAGE, params="worker_job:Params", inputs=inputs)
    received: dict[str, Any] = {}

    def one(item: Item) -> dict[str, torch.Tensor]:
        received.update(item.inputs, prompt=item.params.prompt)
        return x(item)

    item = item_of(tmp_path, "a", inputs=wired, params=RawParams({"prompt": "from the manifest"}))
    reports = run(job_of([item], stage=stage), one)
    assert reports.of("item_finished")[0]["status"] == "done", reports
    assert received == {"aside": "heard", "sound": tmp_path / "earlier.sound.wav", "prompt": "from upstream"}
    assert item.handoff is not None
    lineage = handoff.read(item.handoff).lineage
    assert set(lineage) == {"earlier", "stage"}
    assert lineage["stage"]["threads"] == "1"
    assert lineage["stage"]["key"] == item.key


def test_a_needed_input_that_was_not_made_fails_its_item(tmp_path: Path) -> None:
    path = upstream(tmp_path, x=torch.ones(2))
    stage = replace(STAGE, inputs=(Tensor("extra"),))
    item = item_of(tmp_path, "a", inputs={"extra": Input(path, "earlier", "extra")})
    (finished,) = run(job_of([item], stage=stage), x).of("item_finished")
    assert finished["status"] == "failed"
    assert "'extra' was not made for this item: the stage that makes it may leave it out" in finished["error"]


@pytest.mark.parametrize("harm", ["altered", "another's"])
def test_a_damaged_input_fails_its_item(tmp_path: Path, harm: str) -> None:
    path = upstream(tmp_path, t=torch.ones(2))
    if harm == "altered":
        path.write_bytes(path.read_bytes()[:-1] + b"\1")
    key = "earlier" if harm == "altered" else "another"
    stage = replace(STAGE, inputs=(Tensor("t"),))
    item = item_of(tmp_path, "a", inputs={"t": Input(path, key, "t")})
    (finished,) = run(job_of([item], stage=stage), x).of("item_finished")
    assert (finished["status"], "DamagedError" in finished["error"]) == ("failed", True)
