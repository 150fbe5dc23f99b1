"""Sources of weights: a weight is made of the tensors that are given, and not of those that it came from."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from runner.stream.weights import source_of

HALF = torch.bfloat16


def quantised() -> Any:
    """A weight of torchao: bytes and scales."""
    torchao = pytest.importorskip("torchao.quantization")
    layer = torch.nn.Linear(32, 8, bias=False, dtype=HALF)
    torchao.quantize_(layer, torchao.Int8WeightOnlyConfig())
    return layer.weight


def test_a_quantised_weight_is_made_of_all_its_tensors() -> None:
    weight = quantised()
    source = source_of(weight, HALF)
    copies = [tensor.clone() for tensor in source.tensors]
    made: Any = source.materialize(copies)
    assert torch.equal(made.dequantize(), weight.dequantize())
    for tensor in copies:
        tensor.zero_()
    assert not made.dequantize().any()
    assert weight.dequantize().any()
