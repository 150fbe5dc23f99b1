"""An item's view of a component shares its weights, keeps its own state, and reports its calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import diffusers
import pytest
import torch
from plugins.diffusers.tiny_vaes import build, latents
from runner_diffusers.replay.views import Arguments, view
from tiny_models import texts

if TYPE_CHECKING:
    from collections.abc import Callable

CPU = torch.device("cpu")


def passing(seen: list[tuple[str, str]]) -> Callable[[str, str, Arguments], Any]:
    def on_call(name: str, method: str, call: Arguments) -> Any:
        seen.append((name, method))
        return call()

    return on_call


def test_calls_are_reported_by_name_and_method() -> None:
    seen: list[tuple[str, str]] = []
    vae = build("AutoencoderKL")
    own: Any = view(vae, "vae", frozenset(), CPU, passing(seen))
    z = latents("AutoencoderKL", 32, 32)
    with torch.no_grad():
        decoded = own.decode(z).sample
        assert torch.equal(decoded, vae.decode(z).sample)
        own(torch.zeros(1, 3, 32, 32))
    assert seen[0] == ("vae", "decode")
    assert ("vae", "__call__") in seen
    assert ("vae", "encode") in seen


def test_other_methods_that_the_pipeline_calls_are_reported_too() -> None:
    seen: list[tuple[str, str]] = []
    own: Any = view(build("AutoencoderKL"), "vae", frozenset({"tiled_decode"}), CPU, passing(seen))
    with torch.no_grad():
        own.tiled_decode(latents("AutoencoderKL", 32, 32))
    assert seen == [("vae", "tiled_decode")]


def test_the_first_tensor_of_a_call_is_its_latents() -> None:
    given = torch.zeros(2)
    for call in (Arguments(None, print, (1, given), {}), Arguments(None, print, (), {"z": given, "b": 1})):
        assert call.latents is given
    assert Arguments(None, print, ("a",), {}).latents is None


def test_a_view_is_of_its_class_and_on_the_stages_device() -> None:
    vae = build("AutoencoderKLWan")
    own: Any = view(vae, "vae", frozenset(), torch.device("meta"), passing([]))
    assert isinstance(own, diffusers.AutoencoderKLWan)
    assert (type(own).__name__, type(own).__module__) == (type(vae).__name__, type(vae).__module__)
    assert own.device == torch.device("meta")
    assert own.config == vae.config
    assert [id(one) for one in own.parameters()] == [id(one) for one in vae.parameters()]


def test_the_state_that_a_vae_keeps_on_itself_is_the_items() -> None:
    """Two clips decoded frame by frame in turns, as in lockstep, are those decoded one after the other."""
    vae = build("AutoencoderKLWan")
    clips = [latents("AutoencoderKLWan", 32, 32, 9), latents("AutoencoderKLWan", 32, 64, 5) * 2]
    with torch.no_grad():
        expected = [vae.decode(z).sample for z in clips]
        views: list[Any] = [view(vae, "vae", frozenset(), CPU, passing([])) for _ in clips]
        first, second = views
        others: list[torch.Tensor] = []

        def between(_module: torch.nn.Module, _args: Any) -> None:
            if not others:
                others.append(torch.empty(0))
                others[0] = second.decode(clips[1]).sample

        hook = vae.decoder.register_forward_pre_hook(between)
        made = first.decode(clips[0]).sample
        hook.remove()
    assert torch.equal(made, expected[0])
    assert torch.equal(others[0], expected[1])
    first.use_tiling = True
    assert not second.use_tiling
    assert not vae.use_tiling


def test_a_view_moves_to_no_device_and_casts_its_weights() -> None:
    vae = build("AutoencoderKL")
    weight = vae.decoder.conv_in.weight
    own: Any = view(vae, "vae", frozenset(), CPU, passing([]))
    assert own.to("meta") is own
    assert own.to(device="meta", dtype=torch.float32) is own
    assert vae.decoder.conv_in.weight is weight
    assert not weight.is_meta
    assert own.to(dtype=torch.float64) is own
    assert own.decoder.conv_in.weight.dtype == torch.float64
    assert own.to("meta", torch.float32).decoder.conv_in.weight.dtype == torch.float32
    assert not own.decoder.conv_in.weight.is_meta


def test_offloaded_weights_are_not_cast() -> None:
    vae = build("AutoencoderKL")
    vae.decoder.conv_in._parameters["weight"] = Offloaded(vae.decoder.conv_in.weight)
    own: Any = view(vae, "vae", frozenset(), CPU, passing([]))
    assert own.to(torch.float32) is own
    with pytest.raises(RuntimeError, match=r'AutoencoderKL to torch.float16 .* placement = "resident"'):
        own.to(torch.float16)


class Offloaded(torch.nn.Parameter):
    """A weight that lies elsewhere until it is needed."""


def test_hidden_states_are_those_of_each_layer_for_every_item() -> None:
    """transformers hangs hooks on the layers, which views share, and notes that on the model, which they copy."""
    ids = torch.arange(9)[None]
    with torch.no_grad():
        expected = texts.qwen3(causal=True)(input_ids=ids, output_hidden_states=True).hidden_states
        encoder = texts.qwen3(causal=True)
        for _ in range(3):
            own: Any = view(encoder, "text_encoder", frozenset(), CPU, passing([]))
            found = own(input_ids=ids, output_hidden_states=True).hidden_states
            assert len(found) == len(expected)
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
