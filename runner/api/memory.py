"""The argument and the result of activation formulas (``Stage.memory``)."""

from __future__ import annotations

from dataclasses import InitVar, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from runner.api.model import ModelFacts


@dataclass(frozen=True)
class Activations:
    """What an activation formula may return instead of the peak bytes alone.

    ``peak`` is the most bytes that one item's tensors hold at a time. ``suspended`` are the bytes that it
    holds while waiting at a block for weights; the default is ``peak``. If it is set, the CPU worker may
    retain freed memory, which is faster. ``tokens`` are the rows that each weight is applied to in a pass,
    and ``passes`` the passes over the weights: from them the plan computes how many items must share a pass
    to hide the transfer of its weights. ``output_bytes`` are the bytes of the item's outputs on the disk, for
    the check of free space; ``leaves`` is its name in earlier versions, and still accepted.
    ``operations`` are the floating-point operations of the whole item, from which its time is predicted; the
    default is two for each weight, token and pass. ``small`` are the most bytes that tensors of up to 16 MiB
    hold at a time, which is what a worker may retain of freed memory; the default is ``peak``.
    """

    peak: int
    suspended: int | None = None
    tokens: int = 0
    passes: int = 0
    output_bytes: int = 0
    operations: float = 0
    leaves: InitVar[int | None] = None
    small: int | None = None

    def __post_init__(self, leaves: int | None) -> None:
        if leaves is not None:
            object.__setattr__(self, "output_bytes", leaves)


@dataclass(frozen=True)
class Measure:
    """What an activation formula may return where the memory is found by running code, with torch.

    ``function`` names it, as a dotted string. It is called in a child process of the plan with the same
    arguments as the formula, and returns :class:`Activations`; the model's files may be absent. Its result is
    cached: ``of``, a JSON value, has all that it depends on besides the stage, its dtypes and device, the
    model's configs, and the versions of the plugin and of torch, diffusers and transformers. Items with equal
    ``of`` are measured once.
    """

    function: str
    of: Any = None


@dataclass(frozen=True)
class Sizes:
    """What an activation formula receives besides an item's parameters.

    ``formula(params, sizes)`` returns the most bytes that one item's tensors hold at a time (inputs,
    activations and outputs, without the weights), or :class:`Activations`, or :class:`Measure`. ``params`` is
    an instance of ``Stage.params``, or None if the stage has none.
    """

    dtype: str
    """The stage's compute dtype: ``"float32"``, ``"bfloat16"``, ``"float16"``."""
    device: str
    """``"cpu"``, or torch's name for the kind of accelerator: attention kernels differ in memory."""
    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """``config.json`` of each component that has one, or that of a scheduler or tokenizer, by component."""
    upstream: Mapping[str, Any] = field(default_factory=dict)
    """The parameters of the stage that each input comes from, for the same item, by input."""
    save_dtype: str | None = None
    """The dtype of its floating-point outputs in hand-offs, if it is not ``dtype``."""
    model: ModelFacts | None = None
    """Of the model, if the stage's components or parameters depend on it."""
    dtypes: Mapping[str, str] = field(default_factory=dict)
    """For components whose config alone the stage reads: the dtypes that other stages compute them in."""
    folder: Path | None = None
    """The model's folder; None if it is not on this machine."""

    @property
    def itemsize(self) -> int:
        """Bytes of one number in ``dtype``."""
        return _itemsize(self.dtype)

    @property
    def save_itemsize(self) -> int:
        """Bytes of one number in a hand-off."""
        return _itemsize(self.save_dtype or self.dtype)


def _itemsize(dtype: str) -> int:
    return 4 if dtype == "float32" else 2
