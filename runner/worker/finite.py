"""Detects NaN and infinite values before they are converted to outputs that cannot show them.

Floating-point tensors that a stage returns are checked directly. For images, texts and integers the stage
calls :meth:`runner.api.Item.check_finite` first; if it does not, its components' outputs are checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable

REMEDIES = {
    "float16": 'float16 ends at 65504: set dtype = "float32" or "bfloat16" for this stage',
    "bfloat16": 'set dtype = "float32" for this stage; if that changes nothing, the weights are damaged',
}
DAMAGED = "no dtype has a larger range: the model's weights are damaged, or not meant for these inputs"
SAVED = 'that is beyond its range: set save_dtype = "float32" or "bfloat16" for this stage'


class NonFiniteError(Exception):
    """An output would be computed from NaN or infinite values; the message has the remedy."""


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether a tensor of any dtype has only finite values; allocates no tensor of its size (8-bit apart)."""
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    if tensor.itemsize == 1:  # torch does not compute in 8-bit dtypes
        tensor = tensor.float()
    if bool(torch.isfinite(tensor.sum())):
        return True
    # finite numbers can have an infinite sum
    return all(bool(torch.isfinite(extreme)) for extreme in torch.aminmax(tensor))


def has_nan(tensor: torch.Tensor) -> bool:
    """Whether a tensor of any dtype holds NaN."""
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    if not tensor.is_floating_point() or not tensor.numel():
        return False
    return bool(torch.isnan((tensor.float() if tensor.itemsize == 1 else tensor).amax()))


class FiniteCheck:
    """The checks of one item's values."""

    def __init__(self, dtype: str) -> None:
        """``dtype`` is the one that the stage computes in."""
        self._remedy = REMEDIES.get(dtype, DAMAGED)
        self._dtype = dtype
        self._seen: dict[str, torch.Tensor] = {}
        """Whether each component returned NaN or infinity: a tensor on the device, not synchronised."""

    def begin(self) -> None:
        """Become the current check of this context, for a new attempt."""
        self._seen.clear()
        _CURRENT.set(self)

    def check(self, name: str, values: Any) -> None:
        """Check the values that the output ``name`` is computed from.

        Raises:
            NonFiniteError: they are not finite.

        """
        if not is_finite(torch.as_tensor(values)):
            raise NonFiniteError(
                f"'{name}' would be made of NaN or infinite values, computed in {self._dtype}; {self._remedy}"
            )
        self._seen.clear()  # the stage checks its values itself

    def note(self, component: str, returned: torch.Tensor) -> None:
        """Record whether a component returned NaN or infinity, without synchronising the device."""
        largest = returned.amax()  # masks contain minus infinity
        wrong = torch.isnan(largest) | torch.isposinf(largest)
        seen = self._seen.get(component)
        self._seen[component] = wrong if seen is None else seen | wrong.to(seen.device)

    def raise_if_seen(self) -> None:
        """Raise if a component returned values that are not finite.

        Raises:
            NonFiniteError: a component returned NaN or infinity, and nothing was checked since.

        """
        for component, seen in self._seen.items():
            if bool(seen):
                problem = f"'{component}' returned NaN or infinite values, computed in {self._dtype}"
                raise NonFiniteError(f"{problem}; {self._remedy}")


_CURRENT: ContextVar[FiniteCheck | None] = ContextVar("finite", default=None)


def watch(component: str, module: torch.nn.Module) -> None:
    """Record what a component, or a direct child of it, returns while an item runs."""

    def look(_module: torch.nn.Module, _args: object, returned: object) -> None:
        check = _CURRENT.get()
        if check is None:
            return
        for value in _values(returned):
            if isinstance(value, torch.Tensor) and value.is_floating_point() and value.numel():
                check.note(component, value if value.itemsize > 1 else value.float())

    for part in (module, *module.children()):
        part.register_forward_hook(look)


def _values(returned: object) -> Iterable[object]:
    """The values that a module returns; not nested ones, such as a growing cache."""
    if isinstance(returned, Mapping):
        return returned.values()
    return returned if isinstance(returned, tuple | list) else (returned,)
