"""Adds adapters (LoRA) to a component with diffusers' own code, unfused, each item with weights of its own.

``load_lora_weights`` converts the names in a file and has peft wrap layers: ``to_q`` becomes a layer with
the plain one as ``base_layer`` and with ``lora_A`` and ``lora_B``. The weights of the model stay the same
parameters, mapped from its files, so that every placement moves them as it does without adapters.
"""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from runner.errors import ModelError, in_words
from runner.files.header import read_header
from runner.model.checks.alphas import check_alphas
from runner.stream.blocks import set_weight

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from runner.model.checks.adapters import Recipients
    from runner.placement.library import MappedModule

NAMED = 3  # weights in a message


class Elsewhere(torch.nn.Module):
    """Stand-in for a component that this process has not loaded: adapter weights for it are skipped."""

    device = torch.device("cpu")

    def __init__(self, config: Mapping[str, Any]) -> None:
        from diffusers.configuration_utils import FrozenDict

        super().__init__()
        self.config = FrozenDict(config)

    def load_lora_adapter(self, *_args: Any, **_options: Any) -> None:
        """Leave the adapter to the process that has the component."""


@dataclass(frozen=True)
class AdapterFile:
    """An adapter's file, and the name that peft gives it."""

    path: Path
    adapter: str


def adapter_name(index: int) -> str:
    """The name that peft gives to the adapter at a place in the manifest: users' names may have dots."""
    return f"adapter_{index}"


def attach(
    mapped: MappedModule, component: str, files: Sequence[AdapterFile], recipients: Recipients
) -> MappedModule:
    """The component with the adapters that have weights for it.

    Their weights are in the dtype that the layer computes in, as after ``from_pretrained`` in that dtype.

    Raises:
        ModelError: an adapter does not fit the component, or changes its own weights.

    """
    module = mapped.module
    others = {name: Elsewhere(one.config) for name, one in recipients.without([component]).items()}
    with standing_in(mapped) as dtypes:
        loader = loader_of(recipients.pipeline, {**others, component: module})
        for file in files:
            check_alphas(file.path, read_header(file.path), str(file.path))
            try:
                load(loader, file)
            except Exception as error:
                raise ModelError(
                    f"{file.path} cannot be added to '{component}': {in_words(error)}"
                ) from error
    return activate(replace(mapped, dtypes=dtypes), [file.adapter for file in files])


def load(loader: Any, file: AdapterFile) -> None:
    """Have diffusers load a file. Pickles are refused: it would load them without ``use_safetensors``."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config`")  # several adapters are meant
        loader.load_lora_weights(
            str(file.path), adapter_name=file.adapter, use_safetensors=True, local_files_only=True
        )


def activate(mapped: MappedModule, adapters: Sequence[str]) -> MappedModule:
    """Make all adapters of a component active, with scales that each item has for itself."""
    from diffusers.utils.peft_utils import set_weights_and_activate_adapters
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [part for part in mapped.module.modules() if isinstance(part, BaseTunerLayer)]
    if not layers:
        return mapped
    set_weights_and_activate_adapters(mapped.module, list(adapters), [1.0] * len(adapters))
    for layer in layers:
        vars(layer)["scaling"] = ItemScales(layer)
    added = (weight for layer in layers for weight in adapter_weights(layer))
    return replace(mapped, added=frozenset(added))


def adapter_weights(layer: Any) -> Iterator[torch.nn.Parameter]:
    """The weights that adapters have added to a layer of peft."""
    for name in layer.adapter_layer_names:
        part = getattr(layer, name, None)
        if isinstance(part, torch.nn.ModuleDict | torch.nn.ParameterDict):
            yield from part.parameters()


def loader_of(pipeline: str, modules: Mapping[str, torch.nn.Module]) -> Any:
    """An object of diffusers' loader for the pipeline's adapters, with these components.

    Raises:
        ModelError: diffusers has no such pipeline, or none of its loaders is for it.

    """
    mixin = loader_class(pipeline)
    made = _loader_for(mixin)()
    for name in mixin._lora_loadable_modules:  # noqa: SLF001 - what diffusers' own code reads
        setattr(made, name, modules.get(name) or Elsewhere({}))
    return made


def loader_class(pipeline: str) -> Any:
    """The loader in a pipeline's class; raises as :func:`loader_of`."""
    import diffusers
    from diffusers.loaders.lora_base import LoraBaseMixin

    cls = getattr(diffusers, pipeline, None)
    if not (isinstance(cls, type) and issubclass(cls, diffusers.DiffusionPipeline)):
        raise ModelError(f"the installed diffusers has no pipeline '{pipeline}' that could load it")
    found = (one for one in cls.__mro__ if issubclass(one, LoraBaseMixin))
    mixin = next((one for one in found if not issubclass(one, diffusers.DiffusionPipeline)), None)
    if mixin is None:
        raise ModelError(f"diffusers loads no LoRA into a {pipeline}")
    return mixin


def _loader_for(mixin: Any) -> Any:
    class Loader(mixin):  # type: ignore[misc]
        """The loader without the pipeline around it."""

        hf_device_map = None
        components: Mapping[str, Any] = {}
        converted: Mapping[str, Any] = {}
        """The tensors of the last file, by the names that diffusers has converted theirs to."""

        def lora_state_dict(self, *args: Any, **options: Any) -> Any:
            found = mixin.lora_state_dict(*args, **options)
            self.converted = dict(found[0] if isinstance(found, tuple) else found)
            return found

        def load_lora_into_text_encoder(self, *args: Any, **options: Any) -> None:
            if not isinstance(options.get("text_encoder"), Elsewhere):
                super().load_lora_into_text_encoder(*args, **options)

    return Loader


@contextmanager
def standing_in(mapped: MappedModule) -> Iterator[dict[torch.Tensor, torch.dtype]]:
    """Put weights without memory, in the dtypes that they compute in, in the place of a component's own.

    Adapters take the dtype of the layer that they change, and a mapped weight may be stored in another one.
    Afterwards, the dictionary has the dtypes of all weights that are cast.

    Raises:
        ModelError: what ran inside has changed weights of the component.

    """
    module, dtypes = mapped.module, dict(mapped.dtypes)
    places = [
        (owner, name, weight)
        for owner in module.modules()
        for name, weight in owner.named_parameters(recurse=False, remove_duplicate=False)
    ]
    names = {id(weight): name for name, weight in module.named_parameters()}
    stands = {weight: _stand_in(weight, mapped.dtype_of(weight)) for _, _, weight in places}
    for owner, name, weight in places:
        set_weight(owner, name, stands[weight])
    try:
        yield dtypes
        present = {id(part) for part in module.modules()}
        changed = [
            names[id(weight)]
            for owner, name, weight in places
            if id(owner) not in present or owner._parameters.get(name) is not stands[weight]  # noqa: SLF001
        ]
    finally:
        for owner, name, weight in places:
            set_weight(owner, name, weight)
    if changed:
        more = ", ..." if len(changed) > NAMED else ""
        raise ModelError(
            f"it changes weights of the model itself ({', '.join(changed[:NAMED])}{more}), as control LoRAs "
            "do, and runner takes only adapters that are added to them"
        )
    for weight, stand in stands.items():
        if stand.dtype != weight.dtype:
            dtypes[weight] = stand.dtype
        else:
            dtypes.pop(weight, None)


def _stand_in(weight: torch.nn.Parameter, dtype: torch.dtype) -> torch.nn.Parameter:
    if not weight.is_floating_point():  # GGUF's blocks, which libraries know by their class
        return weight
    stand = torch.nn.Parameter(torch.zeros((), dtype=dtype).expand(weight.shape), requires_grad=False)
    vars(stand).update(vars(weight))  # transformers marks weights that are loaded
    return stand


@dataclass(frozen=True)
class _Item:
    """The adapter weights of the item that computes, and the layer scales that follow from them."""

    weights: Mapping[str, float]
    scales: dict[tuple[int, str], float] = field(default_factory=dict)


_ITEM: ContextVar[_Item | None] = ContextVar("adapters of the item", default=None)


def begin_item(weights: Sequence[float], adapters: Sequence[str]) -> None:
    """Give the item that this context computes its weights of the adapters."""
    _ITEM.set(_Item(dict(zip(adapters, weights, strict=True))))


class ItemScales(dict[str, float]):
    """The scales of a layer's adapters, which peft keeps on the layer: here each item has its own.

    Items in lockstep share the layers and take turns at them, each in its own context. What code sets while
    an item computes, such as the ``scale`` of ``cross_attention_kwargs``, is that item's alone.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__(layer.scaling)
        self._layer = layer

    def __getitem__(self, adapter: str) -> float:
        item = _ITEM.get()
        if item is None or adapter not in item.weights:
            return super().__getitem__(adapter)
        if (id(self), adapter) not in item.scales:
            self._layer.set_scale(adapter, item.weights[adapter])
        return item.scales.get((id(self), adapter), super().__getitem__(adapter))

    def __setitem__(self, adapter: str, scale: float) -> None:
        item = _ITEM.get()
        if item is None:
            super().__setitem__(adapter, scale)
        else:
            item.scales[id(self), adapter] = scale
