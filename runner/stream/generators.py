"""The default generators of torch, numpy and Python: code without one of its own draws from these.

Taking the state of Python's takes 20 us, of numpy's 100, more than all else that is done when calls take
turns. So their bytes are looked at first, which change with every draw, and numpy's, which takes as long to
set, is another one for each call.
"""

from __future__ import annotations

import copy
import ctypes
import random
from typing import Any

import numpy as np
import torch

_NUMPY: Any = np.random  # the one that careless code draws from
_MT19937_BYTES = 2500  # 624 words, and the position
_PYTHON: Any = vars(random)["_inst"]
_PYTHON_HEAD = object.__basicsize__
_PYTHON_BYTES = random.Random.__bases__[0].__basicsize__ - _PYTHON_HEAD


class Generators:
    """Where the generators stand for one call, while another one runs."""

    def __init__(self) -> None:
        """As they stand now."""
        self._torch: list[tuple[torch.Generator, torch.Tensor]] = []
        self._python: Any = None
        self._python_look: tuple[bytes, float | None] | None = None
        self._numpy: Any = None
        self._numpy_look: bytes | None = None
        self._gauss: float | None = None
        """Numpy draws normals two at a time, and keeps the second one for the next time."""
        self.save()

    def copy(self) -> Generators:
        """The same for another call."""
        copied = copy.copy(self)
        copied._numpy = copy.deepcopy(self._numpy)  # noqa: SLF001
        return copied

    def save(self) -> None:
        """Note where they stand."""
        cuda = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        generators = (torch.default_generator, *(torch.cuda.default_generators if cuda else ()))
        self._torch = [(generator, generator.get_state()) for generator in generators]
        look = _look_at_python()
        if look != self._python_look:
            self._python, self._python_look = random.getstate(), look
        self._save_numpy()

    def restore(self) -> None:
        """Have them stand there again."""
        for generator, state in self._torch:
            generator.set_state(state)
        random.setstate(self._python)
        _NUMPY.set_bit_generator(self._numpy)
        if self._gauss is not None:  # setting the generator lost it
            _NUMPY.set_state({**_NUMPY.get_state(legacy=False), "has_gauss": 1, "gauss": self._gauss})

    def _save_numpy(self) -> None:
        current = _NUMPY.get_bit_generator()
        look = _look_at(current)
        untouched = current is self._numpy and look is not None and look == self._numpy_look
        if not untouched or self._gauss is not None:
            told = _NUMPY.get_state(legacy=False)
            self._gauss = told["gauss"] if told.get("has_gauss") else None
            self._numpy, self._numpy_look = current, look


def _look_at_python() -> tuple[bytes, float | None]:
    return ctypes.string_at(id(_PYTHON) + _PYTHON_HEAD, _PYTHON_BYTES), _PYTHON.gauss_next


def _look_at(generator: Any) -> bytes | None:
    """None where it is of another kind than numpy's default."""
    if type(generator) is not np.random.MT19937:
        return None
    return ctypes.string_at(generator.ctypes.state_address, _MT19937_BYTES)
