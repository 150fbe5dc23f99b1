"""What a stage's code receives in the worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.api.model import ModelFacts


class Context(Protocol):
    """The argument of ``start(ctx)``, which is called once in a worker."""

    device: Any
    """The device to compute on, a ``torch.device``."""
    dtype: Any
    """The stage's compute dtype, a ``torch.dtype``."""

    model: ModelFacts | None
    """Of the model, if the stage's components or parameters depend on it."""

    def load(self, component: str) -> Any:
        """The component of that name, placed as planned; a module is called like any other."""

    def config(self, component: str) -> Mapping[str, Any]:
        """The component's ``config.json``."""

    def buffers(self, component: str) -> Mapping[str, Any]:
        """The tensors that match ``Component.buffers``, by name, on the CPU in the dtype of the file."""

    def dtype_of(self, component: str) -> Any:
        """The dtype that a component computes in.

        Where ``Stage.components`` is a function, and the component ``config_only``, it is that of the stage
        that loads it from the same model.
        """


class Bundled(NamedTuple):
    """The value of a :class:`~runner.api.Bundle`: tensors by name, and JSON values."""

    tensors: Mapping[str, Any]
    """Tensors on any device, by any names. Those in the stage's dtype are cast to ``save_dtype``."""
    values: Any = None
    """What :func:`json.dumps` can write."""


class Saved(NamedTuple):
    """The state that an interrupted attempt at an item passed to :meth:`Item.step`."""

    step: int
    """The number of completed steps."""
    state: Any


class Item(Protocol):
    """The argument of the function for one item."""

    id: str
    params: Any
    """The stage's parameters for this item: an instance of ``Stage.params``."""
    inputs: Mapping[str, Any]
    """Tensors (on the CPU), strings and paths by name; absent optional inputs are left out."""
    saved: Saved | None
    """The state of an earlier, interrupted attempt, from which to resume."""

    def step(self, step: int, steps: int, state: Any = None) -> None:
        """Report that ``step`` of ``steps`` is done: progress, cancellation and checkpoint in one call.

        ``state`` is a tensor, a dict of tensors or a :class:`Bundled`: all that the later steps need. It is
        saved every ``checkpoint_every`` steps and when the run is interrupted, with the state of the random
        generators.
        """

    def warn(self, kind: str, message: str, **details: Any) -> None:
        """Report that this item's result differs from what the manifest says, and continue.

        ``kind`` is a short identifier by which warnings are counted (``"prompt_cut"``), ``message`` one line
        for the user, ``details`` JSON values for ``run --json`` and the journal. The warning is shown during
        the run, counted in its last line, and kept in the journal, the report and the provenance of this
        item's outputs: a later run that reuses its hand-off repeats it.
        """

    def note(self, message: str) -> None:
        """Report something that is not specific to this item and no fault; it is shown once a run."""

    def check_finite(self, name: str, values: Any) -> None:
        """Fail this item if ``values``, a tensor that the output ``name`` is made of, are not finite.

        Returned tensors of floating point are checked by the engine. Call this before numbers are converted
        to anything else: libraries make black pixels, or some text, of NaN. The error names the remedy (the
        dtype).
        """
