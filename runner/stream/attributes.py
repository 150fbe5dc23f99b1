"""Attributes that calls set on modules, kept per call: a video VAE caches frames there, for example."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

_NOTHING = object()
"""The value of an attribute that does not exist."""


@dataclass(frozen=True)
class _Attribute:
    """A module's attribute or buffer, and its value before any call set it."""

    module: torch.nn.Module
    name: str
    first: Any

    @property
    def table(self) -> dict[str, Any]:
        buffers: dict[str, Any] = self.module._buffers  # noqa: SLF001
        return buffers if self.name in buffers else vars(self.module)

    def get(self) -> Any:
        return self.table.get(self.name, _NOTHING)

    def put(self, value: Any) -> None:
        if value is _NOTHING:
            self.table.pop(self.name, None)
        else:
            self.table[self.name] = value


class Attributes:
    """One call's values of the attributes that calls set, saved while another call runs."""

    def __init__(self, known: dict[tuple[int, str], _Attribute] | None = None) -> None:
        self._known = {} if known is None else known
        """The attributes that any call has set so far; shared by all calls."""
        self._values: dict[tuple[int, str], Any] = {}

    def copy(self) -> Attributes:
        """For another call, which has no values yet."""
        return Attributes(self._known)

    def save(self) -> None:
        """Save this call's values."""
        self._values = {key: attribute.get() for key, attribute in self._known.items()}

    def restore(self) -> None:
        """Restore this call's values; attributes that it has not set get their values before all calls."""
        for key, attribute in self._known.items():
            attribute.put(self._values.get(key, attribute.first))

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Record which attributes are set on modules that exist at entry.

        Parameters, submodules and modules that a call creates are shared, and not recorded.
        """
        plain, init = torch.nn.Module.__setattr__, torch.nn.Module.__init__
        new: WeakSet[torch.nn.Module] = WeakSet()

        def made(module: torch.nn.Module, *args: Any, **kwargs: Any) -> None:
            new.add(module)
            init(module, *args, **kwargs)

        def noted(module: torch.nn.Module, name: str, value: Any) -> None:
            shared = isinstance(value, torch.nn.Parameter | torch.nn.Module)
            key = (id(module), name)
            if not shared and key not in self._known and module not in new:
                found = _Attribute(module, name, _NOTHING)
                self._known[key] = _Attribute(module, name, found.get())
            plain(module, name, value)

        torch.nn.Module.__setattr__ = noted  # type: ignore[method-assign, assignment]
        torch.nn.Module.__init__ = made  # type: ignore[method-assign, assignment]
        try:
            yield
        finally:
            torch.nn.Module.__setattr__ = plain  # type: ignore[method-assign]
            torch.nn.Module.__init__ = init  # type: ignore[method-assign]
