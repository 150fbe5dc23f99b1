"""Declarations of stages: their inputs and outputs, and the components that they load."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

DTYPE_KINDS: Mapping[str, tuple[str, ...]] = {
    "floating": ("float16", "bfloat16", "float32", "float64"),
    "integer": ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
}
"""Kinds that a :class:`Tensor` may name instead of one dtype."""


@dataclass(frozen=True)
class Tensor:
    """A tensor, an input or output of a stage.

    ``dtype`` is a dtype (``"bfloat16"``, ``"int64"``) or a kind: ``"floating"``, ``"integer"``, ``"any"``.
    ``shape`` has a number or a letter for each dimension, ``("C", "H", "W")``; ``None`` allows any rank.
    An ``optional`` input may be absent; an ``optional`` output may be left out for an item.
    """

    name: str
    dtype: str = "floating"
    shape: tuple[int | str, ...] | None = None
    optional: bool = False


@dataclass(frozen=True)
class Text:
    """A string. As an output, it replaces the item's field of the same name in later stages."""

    name: str
    optional: bool = False


@dataclass(frozen=True)
class File:
    """A file, returned as bytes, as a path, or as an object with ``save(file, format=...)`` (a PIL image).

    As an input it is a :class:`pathlib.Path`. The suffix of an output may be a parameter of its stage,
    ``".{format}"``, whose value is the extension for an item: 1 to 16 of ``a-z 0-9``.
    """

    name: str
    suffix: str = ""
    optional: bool = False

    @property
    def suffix_parameter(self) -> str:
        """The parameter whose value is the extension; empty if the suffix is fixed."""
        return self.suffix[2:-1] if self.suffix.startswith(".{") and self.suffix.endswith("}") else ""


@dataclass(frozen=True)
class Bundle:
    """Any number of named tensors, with JSON values: an input or output whose parts differ from item to item.

    The value is a :class:`~runner.api.Bundled`.
    """

    name: str
    optional: bool = False


Output = Tensor | Text | File | Bundle


@dataclass(frozen=True)
class Component:
    """A part of a model that a stage loads: weights, a tokenizer, or a scheduler.

    ``cls`` is a dotted string, ``"diffusers:FluxTransformer2DModel"``. ``folder`` is the sub-folder of the
    model; the default is the component's name. ``blocks`` names the ``ModuleList`` children whose members are
    streamed one by one; by default they are found. With ``config_only``, only ``config.json`` is fetched and
    read (``ctx.config``), and ``cls`` may be ``""``; of its weights only the tensors that match ``buffers``,
    glob patterns of names, are read (``ctx.buffers``), and the files that hold some are part of the key.

    JSON, text, tokenizer models and safetensors are fetched and part of the key; ``files`` are glob patterns
    of other files that the class reads. ``float32`` names, for the memory plan, weights that the class keeps
    in float32 where the stage computes in another dtype: by dtype, parts of the weights' names between dots,
    ``{"float16": ("wo",)}``.

    The class that the files name (``_class_name``, ``architectures``, ``tokenizer_class``, the entry in
    ``model_index.json``) must be ``cls``; ``accepts`` names other classes whose files may be loaded,
    ``("*",)`` any. The vocabulary of a tokenizer is compared with that of the component ``encoder``; the
    default is ``text_encoder_2`` for ``tokenizer_2``, and so on.
    """

    name: str
    cls: str
    folder: str = ""
    blocks: tuple[str, ...] = ()
    config_only: bool = False
    buffers: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    float32: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    accepts: tuple[str, ...] = ()
    encoder: str = ""

    def __post_init__(self) -> None:
        """Convert lists to tuples, so that a component is hashable."""
        for name in ("blocks", "buffers", "files", "accepts"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))

    @property
    def path(self) -> str:
        """The folder inside the model."""
        return self.folder or self.name


@dataclass(frozen=True)
class Stage:
    """One step of a pipeline.

    ``version`` is part of every key: raise it when the stage computes other numbers from the same parameters.
    ``params`` names a pydantic model: the fields that ``[stage.with]`` and items may set. ``start`` names the
    function that a worker calls once with a :class:`~runner.api.Context`; it returns the function for one
    :class:`~runner.api.Item`. ``memory`` names the activation formula: a function of one item's parameters
    and :class:`~runner.api.Sizes` that imports no torch; it may return :class:`~runner.api.Measure`.
    ``preload`` names modules that the fork server may import beforehand (they must start no threads).

    ``pipelines`` are the ``_class_name`` values in ``model_index.json`` of the models that the stage is for;
    empty means any. ``check`` names a function of one item's parameters and :class:`~runner.api.Facts` that
    returns :class:`~runner.api.Problem` objects and imports no torch. It is called before a run starts, for
    contradictions between the parameters of several stages and the model's configs.

    For a stage that takes models of many kinds, ``components`` and ``params`` may name functions of
    :class:`~runner.api.ModelFacts`, which return a sequence of components, or the pydantic model. They import
    no torch, and raise :class:`~runner.api.UnsupportedModelError` for a model that the stage cannot use.
    """

    name: str
    start: str
    version: int = 1
    summary: str = ""
    params: str = ""
    inputs: tuple[Output, ...] = ()
    outputs: tuple[Output, ...] = ()
    components: tuple[Component, ...] | str = ()
    memory: str = ""
    preload: tuple[str, ...] = ()
    pipelines: tuple[str, ...] = ()
    check: str = ""
