"""Numbers that are not finite: found before an output is made of them in which they can no longer be seen.

Tensors that a stage returns are checked as they are. An image, a text or a tensor of integers hides what it
was made of, so a stage calls :meth:`runner.api.Item.check_finite` first; and for one that does not, what its
components return is watched.
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
    """Numbers that an output is made of are NaN or infinite; the message says what to do."""


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether a tensor of any dtype holds neither NaN nor infinite values; it allocates nothing large."""
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    if tensor.itemsize == 1:  # torch computes in none of the 8-bit dtypes
        tensor = tensor.float()
    if bool(torch.isfinite(tensor.sum())):
        return True
    # finite numbers can have an infinite sum
    return all(bool(torch.isfinite(extreme)) for extreme in torch.aminmax(tensor))


class FiniteCheck:
    """What is known of one item's numbers."""

    def __init__(self, dtype: str) -> None:
        """``dtype`` is what the stage computes in."""
        self._remedy = REMEDIES.get(dtype, DAMAGED)
        self._dtype = dtype
        self._seen: dict[str, torch.Tensor] = {}
        """Whether a component, by its name, returned NaN or infinity: on the device, not waited for."""

    def begin(self) -> None:
        """Be that of the item that runs from here on, in this context."""
        self._seen.clear()
        _CURRENT.set(self)

    def check(self, name: str, values: Any) -> None:
        """Check what the output of that name is made of.

        Raises:
            NonFiniteError: it is not finite.

        """
        if not is_finite(torch.as_tensor(values)):
            raise NonFiniteError(
                f"'{name}' would be made of NaN or infinite values, computed in {self._dtype}; {self._remedy}"
            )
        self._seen.clear()  # the stage looks after its numbers itself

    def note(self, component: str, returned: torch.Tensor) -> None:
        """Note whether a component returned NaN or infinity, without waiting for the device."""
        largest = returned.amax()  # minus infinity is what masks are made of
        wrong = torch.isnan(largest) | torch.isposinf(largest)
        seen = self._seen.get(component)
        self._seen[component] = wrong if seen is None else seen | wrong.to(seen.device)

    def settle(self) -> None:
        """Look at what was noted.

        Raises:
            NonFiniteError: a component returned NaN or infinity, and nothing was checked since.

        """
        for component, seen in self._seen.items():
            if bool(seen):
                told = f"'{component}' returned NaN or infinite values, computed in {self._dtype}"
                raise NonFiniteError(f"{told}; {self._remedy}")


_CURRENT: ContextVar[FiniteCheck | None] = ContextVar("finite", default=None)


def watch(component: str, module: torch.nn.Module) -> None:
    """Note what a component, or a direct child that is called instead, returns for the item that runs."""

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
    """What a module returns, alone or by name; not what lies deeper, such as a cache that grows."""
    if isinstance(returned, Mapping):
        return returned.values()
    return returned if isinstance(returned, tuple | list) else (returned,)
