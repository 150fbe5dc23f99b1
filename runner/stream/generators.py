"""The default random generators of torch, numpy and Python, saved and restored per call.

Getting Python's state takes 20 us, getting or setting numpy's 100 us, longer than the rest of a switch. So
their raw bytes, which change with every draw, are compared first, and each call has its own numpy generator.
"""

from __future__ import annotations

import copy
import ctypes
import random
from typing import Any

import numpy as np
import torch

from runner.accelerator.backends import accelerator_in_use

_NUMPY: Any = np.random  # the legacy global generator
_MT19937_BYTES = 2500  # 624 words, and the position
_PYTHON: Any = vars(random)["_inst"]
_PYTHON_HEAD = object.__basicsize__
_PYTHON_BYTES = random.Random.__bases__[0].__basicsize__ - _PYTHON_HEAD


class Generators:
    """The states of the generators for one call, saved while another call runs."""

    def __init__(self) -> None:
        self._torch: list[tuple[torch.Generator, torch.Tensor]] = []
        self._python: Any = None
        self._python_raw: tuple[bytes, float | None] | None = None
        self._numpy: Any = None
        self._numpy_raw: bytes | None = None
        self._gauss: float | None = None
        """Numpy draws normals in pairs: the second one, kept for the next draw."""
        self.save()

    def copy(self) -> Generators:
        """A copy for another call."""
        copied = copy.copy(self)
        copied._numpy = copy.deepcopy(self._numpy)  # noqa: SLF001
        return copied

    def save(self) -> None:
        """Save the current states."""
        accelerator = accelerator_in_use()
        generators = (torch.default_generator, *(accelerator.generators() if accelerator else ()))
        self._torch = [(generator, generator.get_state()) for generator in generators]
        raw = _python_bytes()
        if raw != self._python_raw:
            self._python, self._python_raw = random.getstate(), raw
        self._save_numpy()

    def restore(self) -> None:
        """Restore the saved states."""
        for generator, state in self._torch:
            generator.set_state(state)
        random.setstate(self._python)
        _NUMPY.set_bit_generator(self._numpy)
        if self._gauss is not None:  # setting the generator lost it
            _NUMPY.set_state({**_NUMPY.get_state(legacy=False), "has_gauss": 1, "gauss": self._gauss})

    def _save_numpy(self) -> None:
        current = _NUMPY.get_bit_generator()
        raw = _numpy_bytes(current)
        untouched = current is self._numpy and raw is not None and raw == self._numpy_raw
        if not untouched or self._gauss is not None:
            state = _NUMPY.get_state(legacy=False)
            self._gauss = state["gauss"] if state.get("has_gauss") else None
            self._numpy, self._numpy_raw = current, raw


def _python_bytes() -> tuple[bytes, float | None]:
    return ctypes.string_at(id(_PYTHON) + _PYTHON_HEAD, _PYTHON_BYTES), _PYTHON.gauss_next


def _numpy_bytes(generator: Any) -> bytes | None:
    """The state's raw bytes; None for a generator of another type than numpy's default."""
    if type(generator) is not np.random.MT19937:
        return None
    return ctypes.string_at(generator.ctypes.state_address, _MT19937_BYTES)
