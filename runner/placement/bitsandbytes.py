"""Loads components that bitsandbytes has quantised, mapped from their files, for any device."""

from __future__ import annotations

import logging
import math
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from runner.errors import ModelError
from runner.placement.families import families

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from runner.model.shapes import ComponentShapes

HOST = torch.device("cpu")


@contextmanager
def mapping(cls: Any) -> Iterator[dict[str, Any]]:
    """The options with which ``from_pretrained`` of a class maps its files, also where there is no card.

    The libraries move the weights to a card while they load them, and diffusers refuses where there is none.
    Here placements move them, and the layers compute on the CPU as well.
    """
    if "diffusers" not in families(cls):
        yield {"device_map": {"": "cpu"}}
        return
    from diffusers.quantizers import auto

    kinds: Any = auto.AUTO_QUANTIZER_MAPPING
    real = dict(kinds)
    try:
        for name in ("bitsandbytes_4bit", "bitsandbytes_8bit"):
            kinds[name] = type(f"Mapping{real[name].__name__}", (_OnTheHost, real[name]), {})
        yield {"ignore_mismatched_sizes": False}  # it would take packed weights for weights of other shapes
    finally:
        kinds.update(real)


class _OnTheHost:
    """Overrides of diffusers' quantizers."""

    def validate_environment(self, *_args: Any, **_options: Any) -> None:
        """Require no card."""

    def update_device_map(self, _device_map: Any) -> dict[str, torch.device]:
        return {"": HOST}


def layers_of(cls: Any, module: torch.nn.Module, config: Mapping[str, Any]) -> dict[str, Any]:
    """The layers that a component's library takes for quantised, by name; ``module`` has no weights yet."""
    settings = config["quantization_config"]
    if "diffusers" in families(cls):
        from diffusers.quantizers import DiffusersAutoQuantizer

        kept = [*(cls._keep_in_fp32_modules or ())]
        quantizer: Any = DiffusersAutoQuantizer.from_config(dict(settings), pre_quantized=True)
        quantizer.preprocess_model(model=module, device_map={"": HOST}, keep_in_fp32_modules=kept)
    else:
        from transformers.quantizers.auto import AutoHfQuantizer

        quantizer = AutoHfQuantizer.from_config(dict(settings), pre_quantized=True)
        quantizer.preprocess_model(model=module, device_map={"": "cpu"})
    return quantised_layers(module)


def with_sides(
    shapes: ComponentShapes, module: torch.nn.Module, layers: Mapping[str, Any]
) -> ComponentShapes:
    """The component with the sides of its quantised weights, where only their numbers are known (on the hub).

    ``module`` has the ``layers`` that its library takes for quantised.

    Raises:
        ModelError: files and library disagree on which layers are quantised.

    """
    assert shapes.quantisation is not None  # noqa: S101
    owners = {name: _owner(name.removesuffix(".weight"), layers) for name in shapes.quantisation.weights}
    _check_layers(shapes, module, layers, owners)
    tensors = dict(shapes.tensors)
    for name, owner in owners.items():
        info = tensors[name]
        sides = (layers[owner].out_features, layers[owner].in_features) if owner else ()
        if sides and len(info.shape) == 1 and info.elements == -(-math.prod(sides) // 2) * 2:
            tensors[name] = replace(info, shape=sides)
    return replace(shapes, tensors=tensors)


def _check_layers(
    shapes: ComponentShapes, module: torch.nn.Module, layers: Mapping[str, Any], owners: Mapping[str, str]
) -> None:
    """Check that the library takes those layers for quantised whose weights are. It raises a ModelError."""
    title = f"component '{shapes.component.name}'"
    if plain := layers.keys() - owners.values():
        raise ModelError(
            f"{title}: the weight of '{min(plain)}' is not quantised in its files, and its config says it is"
        )
    others = {name for name, part in module.named_modules() if hasattr(part, "weight")} - layers.keys()
    for name, owner in owners.items():
        layer = name.removesuffix(".weight")
        if not owner and _owner(layer, others):
            raise ModelError(
                f"{title}: the weight of '{layer}' is quantised in its files, and its config says it is not"
            )


def _owner(name: str, layers: Collection[str]) -> str:
    """The layer of a name in files; empty if there is none. One may have a prefix that the other lacks."""
    parts = name.split(".")
    shorter = (".".join(parts[n:]) for n in range(len(parts)))
    longer = (layer for layer in layers if layer.endswith(f".{name}"))
    return next((layer for layer in shorter if layer in layers), "") or next(longer, "")


def quantised_layers(module: torch.nn.Module) -> dict[str, Any]:
    """The layers of bitsandbytes in a module, by name."""
    from bitsandbytes.nn import Linear4bit, Linear8bitLt

    return {n: part for n, part in module.named_modules() if isinstance(part, Linear4bit | Linear8bitLt)}


def prepare(module: torch.nn.Module) -> None:
    """Make ready the layers of a component that was mapped: their weights are all that they hold."""
    from bitsandbytes.nn import Linear4bit

    for layer in quantised_layers(module).values():
        if isinstance(layer, Linear4bit):
            _prepare_packed(layer)
        else:
            layer.register_forward_hook(_give_back, always_call=True)
    logging.getLogger("bitsandbytes.autograd._functions").addFilter(_Once())


def _prepare_packed(layer: Any) -> None:
    """Leave the weight's state with the weight alone, and have every CPU dequantise it.

    For CPUs with AVX-512 and bfloat16 the library has kernels that want a weight's bytes in another order,
    which a streamed weight would be put in at each use, and that round what is computed in float32.
    """
    layer.quant_state = layer.weight.module = None
    layer.support_avx512bf16_for_cpu = False


def _give_back(layer: Any, _args: object, _output: object) -> None:
    """Return to the weight what the layer has taken from it, which is freed and replaced with the weight."""
    state = layer.state
    if state.CB is not None:
        layer.weight.CB, layer.weight.SCB = state.CB, state.SCB
        state.CB = state.SCB = None


class _Once(logging.Filter):
    """Lets each message through once: the library warns at each call of a layer."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        known = message in self._seen
        self._seen.add(message)
        return not known
