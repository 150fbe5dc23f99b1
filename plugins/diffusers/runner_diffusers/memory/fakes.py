"""Models whose forward passes run on fake tensors: at any size in seconds, without weights and arithmetic.

A pipeline calls them with real tensors, and gets real zeros of the shapes that they would return.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import _disable_current_modes
from transformers import Cache

from runner_diffusers.memory.blocks import Blocks
from runner_diffusers.memory.counting import Count
from runner_diffusers.memory.signatures import attributes, signature
from runner_diffusers.replay.shells import without_weights
from runner_diffusers.replay.values import described, pack, unpack, zeros
from runner_diffusers.replay.views import reporting_class

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runner.api import Sizes
    from runner_diffusers.memory.counting import Cost
    from runner_diffusers.replay.views import Arguments

FAKE = FakeTensorMode(allow_non_fake_inputs=True)
CPU = torch.device("cpu")
ON_CALL = "_on_call_of_fake"
"""The attribute of a model with what its calls are reported to; a view of it has one of its own."""


@dataclass(frozen=True)
class Call:
    """What a component's call takes and returns."""

    cost: Cost
    waiting: int
    returned: Any
    """As JSON, with the dtypes and shapes of its tensors in place of their names."""


@dataclass
class Fakes:
    """The fake models of one pipeline, and the stage that runs now."""

    sizes: Sizes
    stage: Count | None = None
    """Counts what the stage's own code holds, and the calls of its components."""
    passes: dict[str, int] = field(default_factory=dict)
    """Calls of each component in this stage."""
    _known: dict[Any, Call] = field(default_factory=dict)
    _made: dict[Any, torch.nn.Module] = field(default_factory=dict)
    _within: Count | None = None

    def model(
        self,
        name: str,
        cls: Any,
        config: Mapping[str, Any],
        dtype: torch.dtype,
        *,
        read: tuple[str, ...] = (),
        methods: frozenset[str] = frozenset(),
    ) -> torch.nn.Module:
        """A component; the pipeline calls its ``methods``, and reads tensors of it, which are real, itself.

        ``read`` are glob patterns of these tensors' names.
        """
        key = (name, dtype)
        if key not in self._made:
            with FAKE:
                made = without_weights(cls, config, dtype)
            Blocks(lambda: self._within).watch(made)
            for owner, leaf, tensor in tensors_matching(made, read):
                owner._buffers.pop(leaf, None)  # noqa: SLF001 - a fake one, which may be a parameter
                owner._parameters.pop(leaf, None)  # noqa: SLF001
                owner.register_buffer(leaf, torch.ones(tensor.shape, dtype=tensor.dtype))
            made.__class__ = reporting_class(type(made), methods, ON_CALL)
            vars(made)[ON_CALL] = partial(self._on_call, name)
            self._made[key] = made
        return self._made[key]

    def parameters(self, name: str) -> int:
        """The number of a component's parameters."""
        found = [made for (known, _), made in self._made.items() if known == name]
        return sum(weight.numel() for weight in found[-1].parameters()) if found else 0

    @contextmanager
    def counting(self, inputs: list[torch.Tensor]) -> Iterator[Count]:
        """Count what a stage holds that runs inside; ``inputs`` are alive from the start."""
        self.passes = {}
        with Count(self.sizes, self._made.values(), inputs) as count:
            self.stage = count
            try:
                yield count
            finally:
                self.stage = None

    def _on_call(self, name: str, method: str, call: Arguments) -> Any:
        """Run a component's method on fake tensors, or take the result of the same call before."""
        if self._within is not None:
            return call()
        self.passes[name] = self.passes.get(name, 0) + 1
        key = (name, method, attributes(call.owner), signature((call.args, call.kwargs)))
        with _disable_current_modes():
            if key not in self._known:
                self._known[key] = self._run(call)
            known = self._known[key]
            returned = unpack(known.returned, lambda one: zeros(one, CPU), CPU)
            tensors = [leaf for leaf in pytree.tree_leaves(returned) if isinstance(leaf, torch.Tensor)]
        if self.stage is not None:
            self.stage.waiting = max(self.stage.waiting, self.stage.now + known.waiting)
            self.stage.add(known.cost)
            self.stage.hold(tensors, name)
        return returned

    def _run(self, call: Arguments) -> Call:
        with FAKE, torch.inference_mode():
            call.args, call.kwargs = fake((call.args, call.kwargs))
            given = [
                one for one in pytree.tree_leaves((call.args, call.kwargs)) if isinstance(one, torch.Tensor)
            ]
            count = Count(self.sizes, (call.owner, *given))
            self._within = count
            try:
                with count, count.costing() as costs:
                    returned = call()
            finally:
                self._within = None
            return Call(costs[0], count.waiting, pack(_without_caches(returned), described))


def _without_caches(returned: Any) -> Any:
    """The output with its caches of keys and values, which pipelines leave alone, as plain tensors."""
    if isinstance(returned, MutableMapping):
        for name, value in [*returned.items()]:
            if isinstance(value, Cache):
                returned[name] = tuple(_tensors(value))
    return returned


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _tensors(one)
    elif hasattr(value, "__dict__"):
        yield from _tensors([*vars(value).values()])


def tensors_matching(
    module: torch.nn.Module, patterns: tuple[str, ...]
) -> Iterator[tuple[torch.nn.Module, str, torch.Tensor]]:
    """Each tensor that matches one of the glob patterns: the module that has it, its name there, itself."""
    for name, tensor in [*module.named_parameters(), *module.named_buffers()] if patterns else ():
        if any(fnmatchcase(name, pattern) for pattern in patterns):
            owner, _, leaf = name.rpartition(".")
            yield module.get_submodule(owner), leaf, tensor


def fake(tree: Any) -> Any:
    def one(value: Any) -> Any:
        is_real = isinstance(value, torch.Tensor) and not isinstance(value, FakeTensor)
        return FAKE.from_tensor(value) if is_real else value

    return pytree.tree_map(one, tree)
