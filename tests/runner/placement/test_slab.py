"""Weights side by side in one piece of memory: aligned, tied ones once, with the strides of a copy."""

from __future__ import annotations

import torch

from runner.placement.owned import owned_weights
from runner.placement.slab import Slab
from runner.stream.weights import source_of


def bound(weights: list[torch.Tensor], dtype: torch.dtype | None = None) -> Slab:
    module = torch.nn.Module()
    for n, weight in enumerate(weights):
        module.register_buffer(f"weight_{n}", weight)
    slab = Slab(owned_weights(module), lambda weight: source_of(weight, dtype or weight.dtype))
    memory = torch.empty(slab.size, dtype=torch.uint8)
    slab.fill(memory)
    slab.bind(memory)
    return slab


def test_weights_keep_their_numbers_and_strides() -> None:
    odd = torch.rand(5, dtype=torch.bfloat16)
    weights = [odd, torch.rand(6, 4).T, torch.rand(2, 3, 4).permute(2, 0, 1), torch.rand(3).expand(4, 3)]
    weights += [
        torch.empty(0, 7),
        torch.tensor(0.5, dtype=torch.float64),
        torch.arange(3),
        torch.rand(9)[::2],
    ]
    copies = [weight.clone() for weight in weights]
    bound(weights)
    for weight, copy in zip(weights, copies, strict=True):
        assert torch.equal(weight, copy)
        assert weight.stride() == copy.stride() or not weight.numel()


def test_each_lies_at_a_boundary_of_256_bytes_and_is_cast() -> None:
    weights = [torch.rand(size) for size in (1, 65, 64, 3)]
    expected = [weight.bfloat16() for weight in weights]
    slab = bound(weights, torch.bfloat16)
    assert slab.size == 4 * 256
    first = weights[0].data_ptr()
    assert [weight.data_ptr() - first for weight in weights] == [0, 256, 512, 768]
    assert all(torch.equal(weight, cast) for weight, cast in zip(weights, expected, strict=True))


def test_tied_weights_are_one_and_parts_of_others_are_not() -> None:
    whole = torch.rand(8, 64)
    tied, part, turned = whole.detach(), whole[:4], whole.T
    slab = bound([whole, tied, part, turned])
    assert slab.size == 2048 + 1024 + 2048
    assert whole.data_ptr() == tied.data_ptr()
    assert torch.equal(turned, whole.T)
    assert torch.equal(part, whole[:4])
