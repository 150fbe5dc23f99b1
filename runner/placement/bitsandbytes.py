"""Loads components that bitsandbytes has quantised, mapped from their files, whatever computes with them later."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from runner.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.model.quantised import Quantisation

HOST = torch.device("cpu")
PACKED_ROWS = 32  # that the kernels of CPUs with AVX-512 and bfloat16 take at a time


@contextmanager
def mapping(cls: Any) -> Iterator[dict[str, Any]]:
    """The options with which ``from_pretrained`` of a class maps its files, also where there is no card.

    The libraries move the weights to a card while they load them, and diffusers refuses where there is none.
    Here placements move them, and the layers compute on the CPU as well.
    """
    if not any(base.__module__.startswith("diffusers.") for base in cls.__mro__):
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


def quantised_layers(module: torch.nn.Module) -> dict[str, Any]:
    """The layers of bitsandbytes in a module, by name."""
    from bitsandbytes.nn import Linear4bit, Linear8bitLt

    return {n: part for n, part in module.named_modules() if isinstance(part, Linear4bit | Linear8bitLt)}


def prepare(module: torch.nn.Module, quantisation: Quantisation, title: str) -> None:
    """Make ready the layers of a component that was mapped: their weights are all that they hold.

    Raises:
        ModelError: a layer's weight is not quantised, or one of the files' weights is in no such layer.

    """
    from bitsandbytes.nn import Linear4bit

    layers = quantised_layers(module)
    if wrong := layers.keys() ^ {name.removesuffix(".weight") for name in quantisation.weights}:
        raise ModelError(f"{title}: {disagreement(wrong, layers.keys())}")
    for layer in layers.values():
        if isinstance(layer, Linear4bit):
            _prepare_packed(layer)
        else:
            layer.register_forward_hook(_give_back, always_call=True)
    logging.getLogger("bitsandbytes.autograd._functions").addFilter(_Once())


def disagreement(wrong: set[str], layers: Any) -> str:
    """What is wrong where files and class disagree on which layers are quantised."""
    name = min(wrong)
    if name in layers:
        return f"the weight of '{name}' is not quantised in its files, and its library takes it for quantised"
    return f"the weight of '{name}' is quantised in its files, and its library does not take it for quantised"


def _prepare_packed(layer: Any) -> None:
    """Leave the weight's state with the weight alone, and avoid kernels that do not take its shape.

    The kernels fail for them while they compute; without them the weight is dequantised, as on other CPUs.
    """
    state = layer.weight.quant_state
    layer.quant_state = layer.weight.module = None
    rows, columns = state.shape
    if rows % PACKED_ROWS or columns % state.blocksize:
        layer.support_avx512bf16_for_cpu = False


def _give_back(layer: Any, _args: object, _output: object) -> None:
    """Return to the weight what the layer has taken from it, so that it is freed and replaced with the weight."""
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
