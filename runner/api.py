"""What plugins import, and all that they need to import.

A plugin is a module named in the entry-point group ``runner``. It sets ``RUNNER_API = 1``, imports
nothing heavy, and implements hooks of :mod:`runner.hookspecs` with :data:`hookimpl`. Heavy code is named
by dotted strings (``"package.module:object"``) and imported in the worker process alone.
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import pluggy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

API_VERSION = 1
"""The ``RUNNER_API`` that this host speaks."""

hookimpl = pluggy.HookimplMarker("runner")
"""Marks a function of the plugin module as the implementation of the hook of its name."""


DTYPE_KINDS: Mapping[str, tuple[str, ...]] = {
    "floating": ("float16", "bfloat16", "float32", "float64"),
    "integer": ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
}
"""Kinds that a :class:`Tensor` may name instead of one dtype."""


@dataclass(frozen=True)
class Tensor:
    """A tensor that passes from stage to stage by name.

    ``dtype`` is a dtype (``"bfloat16"``, ``"int64"``) or a kind: ``"floating"``, ``"integer"``, ``"any"``.
    ``shape`` has a number or a letter for each dimension, ``("C", "H", "W")``; ``None`` leaves the rank open.
    An ``optional`` input may be absent; an ``optional`` output may be left out for an item.
    """

    name: str
    dtype: str = "floating"
    shape: tuple[int | str, ...] | None = None
    optional: bool = False


@dataclass(frozen=True)
class Text:
    """A string. Downstream it replaces the item's field of the same name."""

    name: str
    optional: bool = False


@dataclass(frozen=True)
class File:
    """A file, returned as bytes, as a path, or as an object with ``save(file, format=...)`` (a PIL image).

    As an input it arrives as a :class:`pathlib.Path`.
    """

    name: str
    suffix: str = ""
    optional: bool = False


Output = Tensor | Text | File


@dataclass(frozen=True)
class Component:
    """A part of a model that a stage loads: weights, or a tokenizer or scheduler.

    ``cls`` is a dotted string, ``"diffusers:FluxTransformer2DModel"``; ``folder`` is the sub-folder of the
    model, the component's own name if left out. ``blocks`` names the ``ModuleList`` children whose members
    are streamed one by one; left out, they are found. With ``config_only`` nothing but ``config.json`` is
    fetched and read (``ctx.config``), and ``cls`` may be ``""``. ``files`` are glob patterns of what the
    class reads besides JSON, text, tokenizer models and safetensors: only files that are named are fetched
    and are part of the key. ``float32`` tells the plan what the class keeps in float32 where the stage
    computes in less: by dtype, parts of weights' names between dots, ``{"float16": ("wo",)}``.

    What the files say that they are for (``_class_name``, ``architectures``, ``tokenizer_class``, the entry
    in ``model_index.json``) must be ``cls``; ``accepts`` names other classes whose files may be loaded too,
    ``("*",)`` those of any. The vocabulary of a tokenizer is compared with that of the component ``encoder``:
    left out, ``text_encoder_2`` for ``tokenizer_2``, and so on.
    """

    name: str
    cls: str
    folder: str = ""
    blocks: tuple[str, ...] = ()
    config_only: bool = False
    files: tuple[str, ...] = ()
    float32: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    accepts: tuple[str, ...] = ()
    encoder: str = ""

    def __post_init__(self) -> None:
        """Take lists for tuples: a component is hashed."""
        for name in ("blocks", "files", "accepts"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))

    @property
    def path(self) -> str:
        """The folder inside the model."""
        return self.folder or self.name


@dataclass(frozen=True)
class Stage:
    """One step of a pipeline, as a plugin declares it.

    ``version`` is raised when the numbers that the stage makes change: it is part of every key.
    ``params`` names a pydantic model: what ``[stage.with]`` and items may set. ``start`` names the function
    that the worker calls once with a :class:`Context` and that returns the function for one
    :class:`Item`. ``memory`` names the activation formula: a function of one item's parameters and
    :class:`Sizes` that imports no torch. ``preload`` names the modules that the fork server may import ahead
    (imports only: they must start no threads).

    ``pipelines`` are the pipeline classes whose models the stage is for, as ``_class_name`` in
    ``model_index.json`` has them; any, if left out. ``check`` names a function of one item's parameters and
    :class:`Facts` that returns :class:`Problem` objects, and imports no torch: what the parameters of several
    stages and the configs of the model say against each other is refused before a run starts.
    """

    name: str
    start: str
    version: int = 1
    summary: str = ""
    params: str = ""
    inputs: tuple[Output, ...] = ()
    outputs: tuple[Output, ...] = ()
    components: tuple[Component, ...] = ()
    memory: str = ""
    preload: tuple[str, ...] = ()
    pipelines: tuple[str, ...] = ()
    check: str = ""


@dataclass(frozen=True)
class Facts:
    """What a stage's ``check`` is given besides an item's parameters; nothing in it is ever loaded.

    Parameters are instances of ``Stage.params``. A wired text is not known yet: ``"text"`` stands for it.
    """

    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """``config.json``, or else ``scheduler_config.json`` or ``tokenizer_config.json``, by component."""
    upstream: Mapping[str, Any] = field(default_factory=dict)
    """The parameters of the stage that each input comes from, for the same item, by input."""
    upstream_configs: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    """``configs`` of the stage that each input comes from, by input; absent for inputs that are not wired."""


@dataclass(frozen=True)
class Problem:
    """What a stage's ``check`` found: a sentence that says what is wrong and what to do.

    It is shown where ``parameter`` is set, which may be one of an earlier stage, or with ``component`` where
    the model's source is. A ``warning`` is shown, and the run goes on.
    """

    message: str
    parameter: str = ""
    component: str = ""
    warning: bool = False


@dataclass(frozen=True)
class Template:
    """A manifest that ``runner new`` starts from: the stages of a model, at the quality that they deserve.

    ``path`` is that of a TOML file, from the folder of the plugin's package. ``pipelines`` name the models
    that it serves, by the ``_class_name`` in their ``model_index.json`` (``"FluxPipeline"``); ``model`` is
    the one that is taken where none is given, the template's own if left out.

    The file is a manifest that loads as it is. Its ``name``, ``[model]`` and ``[budget]`` are written anew;
    where a stage does not fit, its parameters with ``less_memory`` values are lowered, then its ``dtype``. In
    the comments before its first key, ``{manifest}``, ``{hardware}`` and ``{access}`` are filled in, and a
    line that has nothing to fill in is left out.

    ``recommend`` names a function that is given the :class:`ModelFacts` of the model and returns what it is
    :class:`Recommended` to be run with, in place of what the file says. It imports no torch.
    """

    name: str
    pipelines: tuple[str, ...]
    path: str
    model: str = ""
    recommend: str = ""


@dataclass(frozen=True)
class ModelFacts:
    """What a model's own files say of it, weights aside."""

    configs: Mapping[str, Mapping[str, Any]]
    """``config.json`` of each component that has one, by component."""
    card: Mapping[str, Any]
    """The metadata at the head of its ``README.md``, where that is on this machine."""


@dataclass(frozen=True)
class Recommended:
    """What a model is to be run with, where that is other than its template says.

    ``parameters`` are those of ``[stage.with]``, by the name of the template's stage; None takes one out.
    ``prompts`` are examples of what the model draws.
    """

    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    prompts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Demo:
    """A manifest that ``runner demo`` writes into the current folder and runs.

    ``path`` is that of a TOML file, from the folder of the plugin's package; it is written under its own
    name, unchanged. It should need no download and no accelerator: its model is a packaged one
    (``plugin:NAME/FOLDER``).
    """

    name: str
    path: str
    summary: str = ""


@dataclass(frozen=True)
class Activations:
    """What an activation formula may return where bytes alone do not say enough.

    ``peak`` is the most bytes that one item's tensors hold at a time, ``suspended`` what they hold while it
    waits at a block for its weights (as much, if left out; told, and where there is room, the CPU's memory is
    used again from tensor to tensor, which is faster). ``tokens`` go through each weight in a pass and
    ``passes`` go over the weights: they tell how many items must share a pass to hide its transfer.
    ``output_bytes`` are the bytes that the item's outputs take on the disk, for which room is checked
    beforehand; ``leaves`` is its name in earlier versions, and still accepted.
    ``operations`` are the floating-point operations of the whole item, from which the plan tells its time;
    left out, two for each weight, token and pass.
    """

    peak: int
    suspended: int | None = None
    tokens: int = 0
    passes: int = 0
    output_bytes: int = 0
    operations: float = 0
    leaves: InitVar[int | None] = None

    def __post_init__(self, leaves: int | None) -> None:
        if leaves is not None:
            object.__setattr__(self, "output_bytes", leaves)


@dataclass(frozen=True)
class Sizes:
    """What an activation formula is given besides an item's parameters.

    A formula ``formula(params, sizes)`` returns the most bytes that one item's tensors hold at a time:
    inputs, activations and outputs, without the weights; or :class:`Activations`. ``params`` is an instance
    of ``Stage.params`` (None if there is none).
    """

    dtype: str
    """What the stage computes in: ``"float32"``, ``"bfloat16"``, ``"float16"``."""
    device: str
    """``"cpu"`` or ``"cuda"``: attention kernels differ in what they keep."""
    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """``config.json`` of each component that has one, by component."""
    upstream: Mapping[str, Any] = field(default_factory=dict)
    """The parameters of the stage that each input comes from, for the same item, by input."""
    save_dtype: str | None = None
    """What it hands off in, if not in ``dtype``."""

    @property
    def itemsize(self) -> int:
        """Bytes of one number in ``dtype``."""
        return _itemsize(self.dtype)

    @property
    def save_itemsize(self) -> int:
        """Bytes of one number as it is handed off."""
        return _itemsize(self.save_dtype or self.dtype)


def _itemsize(dtype: str) -> int:
    return 4 if dtype == "float32" else 2


class Context(Protocol):
    """What ``start(ctx)`` is given, once a worker."""

    device: Any
    """Where to compute: a ``torch.device``."""
    dtype: Any
    """What to compute in: the stage's ``dtype`` as a ``torch.dtype``."""

    def load(self, component: str) -> Any:
        """The component of that name, placed as the plan says; it looks like a plain module."""

    def config(self, component: str) -> Mapping[str, Any]:
        """The component's ``config.json``."""


class Saved(NamedTuple):
    """How far an item had come: ``state`` is what :meth:`Item.step` was given with ``step``."""

    step: int
    """Steps that are done."""
    state: Any


class Item(Protocol):
    """What the function for one item is given."""

    id: str
    params: Any
    """The stage's parameters for this item: an instance of ``Stage.params``."""
    inputs: Mapping[str, Any]
    """Tensors (on the CPU), strings and paths by name; absent optional inputs are left out."""
    saved: Saved | None
    """What an earlier, interrupted attempt saved through :meth:`step`: go on from there."""

    def step(self, step: int, steps: int, state: Any = None) -> None:
        """Report that ``step`` of ``steps`` is done: progress, cancellation and checkpoint in one call.

        ``state`` is a tensor, or a dict of tensors: all that the steps after this one need. It is saved every
        ``checkpoint_every`` steps and when the run is interrupted, with the state of the random generators.
        """

    def warn(self, kind: str, message: str, **details: Any) -> None:
        """Report that this item is made differently from what was asked for, and go on.

        ``kind`` is a short identifier by which warnings are counted (``"prompt_cut"``), ``message`` one line
        for the user, ``details`` JSON values for ``run --json`` and the journal. The warning is shown while
        the run goes on, counted in its last line, and kept in the journal, the report and the provenance of
        what is made of this item: a later run that takes its hand-off repeats it.
        """

    def note(self, message: str) -> None:
        """Report what is no fault of this item and holds for others too: it is shown once a run."""

    def check_finite(self, name: str, values: Any) -> None:
        """Fail this item if ``values``, a tensor that the output ``name`` is made of, are not finite.

        Tensors of floating point are checked when they are returned. Call this before numbers become anything
        else: libraries make black pixels, or some text, of NaN. The error says what to change (the dtype).
        """


@dataclass(frozen=True)
class Run:
    """A run, as lifecycle hooks see it."""

    name: str
    directory: Path
    manifest: Path
    stages: Sequence[str]
    items: int


@dataclass(frozen=True)
class ItemResult:
    """One item at one stage: ``status`` is ``"done"`` or ``"failed"``."""

    stage: str
    item: str
    key: str
    status: str
    seconds: float
    error: str | None = None


@dataclass(frozen=True)
class StageResult:
    """A stage at its end; ``predicted`` and ``measured`` hold bytes of ``"vram"`` and ``"ram"``.

    ``streamed`` says, where weights were streamed, how many bytes of them were ``"read"`` and for how many
    seconds computing ``"waited"`` for them.
    """

    stage: str
    seconds: float
    done: int
    cached: int
    failed: int
    predicted: Mapping[str, int | None] = field(default_factory=dict)
    measured: Mapping[str, int | None] = field(default_factory=dict)
    streamed: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Summary:
    """A run at its end."""

    exit_code: int
    outputs: Sequence[Path]
    seconds: float
