"""What pipelines pass around goes through tensors and JSON unchanged, and nothing in them chooses code."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from PIL import Image
from runner_diffusers.replay.values import UnsupportedValueError, described, pack, unpack, zeros
from safetensors.torch import load, save
from transformers.modeling_outputs import BaseModelOutputWithPooling

CPU = torch.device("cpu")


def through_files(value: Any) -> Any:
    """The value after it was in files: JSON, whose names are sorted, and contiguous tensors."""
    tensors: dict[str, torch.Tensor] = {}

    def put(tensor: torch.Tensor) -> str:
        tensors[f"t{len(tensors)}"] = tensor.contiguous()
        return f"t{len(tensors) - 1}"

    packed = json.loads(json.dumps(pack(value, put), sort_keys=True, allow_nan=False))
    return unpack(packed, load(save(tensors)).__getitem__, CPU)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        7,
        -0.5,
        float("inf"),
        "a fox",
        [],
        (1, [2.0, None]),
        {"b": 1, "a": (2,)},
        torch.Size([2, 3]),
    ],
)
def test_plain_values(value: Any) -> None:
    back = through_files(value)
    assert (back, type(back)) == (value, type(value))
    assert repr(back) == repr(value)


def test_dtypes_devices_and_numbers_of_numpy() -> None:
    assert through_files([torch.bfloat16, torch.device("cpu"), np.float32(0.5), np.int64(3)]) == [
        torch.bfloat16,
        CPU,
        0.5,
        3,
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.uint8])
def test_tensors(dtype: torch.dtype) -> None:
    tensor = torch.arange(6).reshape(2, 3).to(dtype)
    back = through_files(tensor)
    assert torch.equal(back, tensor)
    assert back.dtype == dtype


def test_a_tensor_keeps_the_order_in_which_it_lies_in_memory() -> None:
    last = torch.randn(1, 3, 4, 5).to(memory_format=torch.channels_last)
    turned = torch.randn(4, 6).t()
    for tensor in (last, turned):
        back = through_files({"one": [tensor]})["one"][0]
        assert back.stride() == tensor.stride()
        assert torch.equal(back, tensor)


@pytest.mark.parametrize(
    "tensor", [torch.randn(3, 1).expand(3, 4), torch.randn(4, 6)[:, ::2]], ids=["expanded", "with gaps"]
)
def test_a_tensor_that_is_not_dense_becomes_so(tensor: torch.Tensor) -> None:
    back = through_files(tensor)
    assert torch.equal(back, tensor)
    assert back.is_contiguous()


def test_pictures_and_arrays() -> None:
    array = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    picture, mask = Image.fromarray(array), Image.fromarray(array[:, :, 0])
    back = through_files([array, picture, mask])
    assert np.array_equal(back[0], array)
    assert [one.mode for one in back[1:]] == ["RGB", "L"]
    assert back[1].tobytes() == picture.tobytes()


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_distribution_is_sampled_anew(deterministic: bool) -> None:
    made = DiagonalGaussianDistribution(torch.randn(1, 8, 2, 2), deterministic=deterministic)
    back = through_files(made)
    assert isinstance(back, DiagonalGaussianDistribution)
    samples = [one.sample(torch.Generator().manual_seed(3)) for one in (made, back)]
    assert torch.equal(*samples)
    assert torch.equal(back.mode(), made.mode())


def test_outputs_of_libraries_are_read_by_attribute_key_and_index() -> None:
    made = BaseModelOutputWithPooling(last_hidden_state=torch.ones(1), pooler_output=torch.zeros(2))
    back = through_files(made)
    assert torch.equal(back.last_hidden_state, torch.ones(1))
    assert torch.equal(back["pooler_output"], back[1])
    assert back.hidden_states is None
    assert not hasattr(back, "logits")
    batch = through_files(OrderedDict(input_ids=torch.ones(2)))
    assert torch.equal(batch["input_ids"], torch.ones(2))


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (object(), "builtins.object"),
        ({(1, 2): 3}, "builtins.dict"),
        ({"a": {3}}, "builtins.set"),
        (print, "function"),
    ],
)
def test_other_types_are_refused_by_name(value: Any, named: str) -> None:
    with pytest.raises(UnsupportedValueError, match=named):
        pack(value, lambda _: "")


HOSTILE: list[Any] = [
    {"os.system": "touch stolen"},
    {"class": "os:system", "of": ["touch stolen"]},
    {"distribution": "os.system", "of": "touch stolen"},
    {"distribution": "__class__", "of": None},
    {"dtype": "torch.load"},
    {"dtype": ["torch.float32"]},
    {"tensor": "../../etc/passwd"},
    {"tensor": 7},
    {"tensor": "t0", "strides": [1, 1, 1, 1]},
    {"tensor": "t0", "strides": ["a"]},
    {"tensor": "t0", "strides": [-1]},
    {"tensor": "t0", "strides": [1 << 62]},
    {"tensor": "t33", "strides": [2, 2]},
    {"image": "t0", "mode": "no mode"},
    {"array": None},
    {"list": 7},
    {"dict": [["a"]]},
    {"fields": {"__class__": "x"}},
    {"float": "many"},
    {"strides": [1], "mode": "RGB"},
    {},
    [1, 2],
]


@pytest.mark.parametrize("packed", HOSTILE, ids=json.dumps)
def test_what_pack_did_not_write_is_refused(packed: Any) -> None:
    tensors = {"t0": torch.ones(2), "t33": torch.ones(3, 3)}
    with pytest.raises(UnsupportedValueError, match="hand-off"):
        unpack(packed, tensors.__getitem__, CPU)


def test_nothing_is_imported_or_called_for_what_a_hand_off_names() -> None:
    program = f"""
import sys, torch
from runner_diffusers.replay.values import UnsupportedValueError, unpack
before = set(sys.modules)
for packed in {HOSTILE!r} + [{{"distribution": "antigravity", "of": None}}, {{"antigravity": []}}]:
    try:
        unpack(packed, {{"t0": torch.ones(2), "t33": torch.ones(3, 3)}}.__getitem__, torch.device("cpu"))
    except UnsupportedValueError:
        pass
print(sorted(set(sys.modules) - before))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.bool, torch.int64])
def test_zeros_have_the_dtype_and_shape_that_was_described(
    device: str, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    made = zeros(described(torch.ones(shape, dtype=dtype)), torch.device(device))

    assert (made.shape, made.dtype, made.device.type) == (shape, dtype, device)
    assert device == "meta" or not made.any()


@pytest.mark.parametrize(
    "description", ["Tensor 2", "float32 2xa", "float32 -2", "float32 99999999999x99999999"]
)
def test_zeros_that_nothing_described_are_refused(description: str) -> None:
    with pytest.raises(UnsupportedValueError, match="hand-off"):
        unpack({"tensor": description}, lambda one: zeros(one, CPU), CPU)
