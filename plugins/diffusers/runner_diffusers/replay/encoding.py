"""What encoders return: recorded in the encode stage, played back in the later ones.

Recorded is the result of the outermost method of the pipeline in which an encoder runs (``encode_prompt``),
so that no layer's hidden states are kept. Of what ``__call__`` calls itself, of a VAE's ``encode``, and in
methods whose results may depend on the seed, the result is recorded by its own name; a VAE's distributions
are sampled anew in each stage, by its seed.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from runner_diffusers.replay.values import UnsupportedValueError, pack, unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from runner_diffusers.replay.views import Arguments


class ReplayError(Exception):
    """A pipeline that does not behave in this stage as it did in the one before."""


class Recording:
    """Calls and records encoders, in the encode stage."""

    def __init__(self, generator: torch.Generator) -> None:
        self.tensors: dict[str, torch.Tensor] = {}
        self.calls: dict[str, Any] = {}
        self._generator = generator
        self._start = generator.get_state()
        self._counts: Counter[str] = Counter()
        self._inside: list[str] = []
        """Components that are being called: one that calls itself is recorded once."""
        self._methods: list[_Method] = []
        """The method of the pipeline that is being called, the outermost."""

    def method(self, name: str, call: Arguments, *, encodes: bool) -> Any:
        """Call a method of the pipeline; ``encodes`` says that it is known to run an encoder."""
        if self._methods:
            return call()
        key, before, drawn = self._key(name), Counter(self._counts), self._generator.get_state()
        is_of_seed = _has(torch.Tensor, call) and not torch.equal(drawn, self._start)
        self._methods.append(_Method(encodes, keeps_all=is_of_seed or _has(torch.Generator, call)))
        try:
            returned = call()
        finally:
            method = self._methods.pop()
        if method.encoded and not is_of_seed and torch.equal(drawn, self._generator.get_state()):
            self._counts = before
            self._record(key, call, returned)
        else:
            for inner, inner_call, inner_returned in method.inner:
                self._record(inner, inner_call, inner_returned)
        return returned

    def component(self, name: str, method: str, call: Arguments, *, encoder: bool) -> Any:
        """Call a component: an encoder, or the encoding half of a VAE."""
        if name in self._inside:
            return call()
        key = self._key(f"{name}.{method}")
        self._inside.append(name)
        try:
            returned = call()
        finally:
            self._inside.pop()
        if not self._methods:
            self._record(key, call, returned)
            return returned
        self._methods[0].encoded |= encoder
        if self._methods[0].keeps_all or not encoder:
            self._methods[0].inner.append((key, call, returned))
        return returned

    def _key(self, name: str) -> str:
        self._counts[name] += 1
        return f"{name}#{self._counts[name] - 1}"

    def _record(self, key: str, call: Arguments, returned: Any) -> None:
        def put(tensor: torch.Tensor) -> str:
            name = f"{key}.{len(self.tensors)}"
            self.tensors[name] = tensor.detach().to("cpu", copy=True)
            return name

        try:
            self.calls[key] = {"returned": pack(returned, put), "arguments": digest(call)}
        except UnsupportedValueError as error:
            raise ReplayError(f"{key} returned something that cannot be handed on: {error}") from None


def _has(kind: type[Any], call: Arguments) -> bool:
    """Whether a call has arguments of a type."""
    return any(isinstance(value, kind) for value in _leaves([*call.args, call.kwargs]))


@dataclass
class _Method:
    """A call of a pipeline's method, with the calls of components in it."""

    encoded: bool
    """Whether an encoder ran in it."""
    keeps_all: bool
    """Whether its result may depend on the seed, so that what encoders return may be needed."""
    inner: list[tuple[str, Arguments, Any]] = field(default_factory=list)


class Playback:
    """Returns what was recorded, in the later stages."""

    def __init__(
        self,
        tensors: Mapping[str, torch.Tensor],
        calls: Mapping[str, Any],
        device: torch.device,
        cast: Callable[[torch.Tensor, str], torch.Tensor],
        *,
        compares: bool,
        own: Collection[str] = (),
    ) -> None:
        """``cast`` converts a recorded tensor of a component, or of a method for "".

        What was not recorded is computed by components that the stage has itself, ``own``: a few pipelines
        encode a picture once more in their tails. With ``compares``, a call whose arguments differ from those
        of the recorded one is refused.
        """
        self._tensors = tensors
        self._calls = calls
        self._device = device
        self._cast = cast
        self._compares = compares
        self._own = own
        self._counts: Counter[str] = Counter()
        self._depth = 0

    def method(self, name: str, call: Arguments, *, encodes: bool) -> Any:
        """Play back a method of the pipeline that was recorded; call another."""
        del encodes
        if self._depth:
            return call()
        self._counts[name] += 1
        key = f"{name}#{self._counts[name] - 1}"
        if key in self._calls:
            return self._returned(key, "", call)
        with self._deeper():
            return call()

    def component(self, name: str, method: str, call: Arguments, *, encoder: bool) -> Any:
        """Play back a component's result.

        Raises:
            ReplayError: it was not called in the encode stage, or with other arguments.

        """
        del encoder
        called = f"{name}.{method}"
        self._counts[called] += 1
        key = f"{called}#{self._counts[called] - 1}"
        if key not in self._calls and name in self._own:
            return call()
        if key not in self._calls:
            raise ReplayError(f"{key} was not called in the encode stage")
        return self._returned(key, name, call)

    def _returned(self, key: str, component: str, call: Arguments) -> Any:
        recorded = self._calls[key]
        if self._compares and component and recorded.get("arguments") != digest(call):
            raise ReplayError(
                f"{key} has other arguments than in the encode stage: they depend on the seed or the steps"
            )

        def get(name: str) -> torch.Tensor:
            return self._cast(self._tensors[name].clone(), component).to(self._device)

        return unpack(recorded["returned"], get, self._device)

    @contextmanager
    def _deeper(self) -> Iterator[None]:
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1


def digest(call: Arguments) -> str:
    """A hash of the numbers and texts that a call is made with; objects of other kinds are left out."""
    hashed = hashlib.sha256()
    for value in _leaves([*call.args, *sorted(call.kwargs.items())]):
        if isinstance(value, torch.Tensor):
            hashed.update(f"{value.dtype}{tuple(value.shape)}".encode())
            content = value.detach().to("cpu").contiguous().reshape(-1)
            hashed.update(content.view(torch.uint8).numpy().tobytes() if value.numel() else b"")
        elif isinstance(value, np.ndarray):
            hashed.update(f"{value.dtype}{value.shape}".encode() + value.tobytes())
        elif isinstance(value, Image.Image):
            hashed.update(f"{value.mode}{value.size}".encode() + value.tobytes())
        elif isinstance(value, str | int | float):
            hashed.update(repr(value).encode())
    return hashed.hexdigest()


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for one in value:
            yield from _leaves(one)
    elif isinstance(value, dict):
        for name in sorted(value, key=str):
            yield from (str(name), *_leaves(value[name]))
    else:
        yield value
