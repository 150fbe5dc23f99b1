"""Loads components with their library's ``from_pretrained``: safetensors only, without network.

The libraries map the files into memory; placements decide which weights are copied, when and to where.
"""

from __future__ import annotations

import logging
import os
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from runner.errors import ModelError
from runner.model.bitsandbytes import BITSANDBYTES
from runner.placement import bitsandbytes
from runner.placement.agreement import Disagreement, check_agreement
from runner.placement.casts import DeferredCasts
from runner.placement.families import families
from runner.placement.owned import owned_weights
from runner.placement.plain import open_plain
from runner.placement.single_file import checkpoint_of, load_converted
from runner.placement.slab import Slab
from runner.stream.weights import Plain, WeightSource, is_plain, source_of
from runner.units import format_size

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from runner.api import Component
    from runner.model.files import ComponentFiles

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MappedModule:
    """A component whose weights are mapped from their files, where possible."""

    module: torch.nn.Module
    dtypes: Mapping[torch.Tensor, torch.dtype]
    """The dtypes that weights are cast to when they are copied; others keep theirs."""
    added: frozenset[torch.Tensor] = frozenset()
    """Weights of adapters, which are in no file of the component and stay on the device."""

    def copy(self, weight: torch.Tensor, device: torch.device) -> torch.Tensor:
        """A copy of a weight on the device, in the dtype that it computes in.

        The copy is aligned to 64 bytes, as torch allocates. Mapped files align to 8 bytes only, which changes
        float32 results by 1e-6, and the page cache may drop their pages.
        """
        source = self.source_of(weight)
        if isinstance(source, Plain):
            return weight.detach().to(device, source.dtype, copy=True)
        return source.materialize([tensor.detach().to(device, copy=True) for tensor in source.tensors])

    def materialize(self, device: torch.device) -> torch.nn.Module:
        """The module, with all weights but placeholders copied to the device; tied weights are one copy."""
        with torch.no_grad():
            if device.type == "cpu":
                self._copy_each()
            else:
                slab = self.slab()
                memory = torch.empty(slab.size, dtype=torch.uint8, device=device)
                slab.fill(memory)
                slab.bind(memory)
        return self.module

    def slab(self) -> Slab:
        """The places for all weights but placeholders in one piece of memory."""
        return Slab(owned_weights(self.module), self.source_of)

    def _copy_each(self) -> None:
        for weight in owned_weights(self.module):
            weight.put(self.copy(weight.weight, torch.device("cpu")))

    def dtype_of(self, weight: torch.Tensor) -> torch.dtype:
        """The dtype that a weight computes in."""
        return self.dtypes.get(weight, weight.dtype)

    def source_of(self, weight: torch.Tensor) -> WeightSource:
        """The tensors of a weight, and what they become."""
        return source_of(weight, self.dtype_of(weight))


def open_module(cls: Any, files: ComponentFiles, dtype: torch.dtype) -> MappedModule:
    """Map a component that computes in ``dtype``; its weights are not read yet, if its class allows that.

    Raises:
        ModelError: the weights in the files are not those of the class.

    """
    mapped = _open_uncast(cls, files, dtype) or MappedModule(from_pretrained(cls, files, dtype), {})
    _compare_with_plan(mapped, files.shapes.component, dtype)
    return mapped


def _open_uncast(cls: Any, files: ComponentFiles, dtype: torch.dtype) -> MappedModule | None:
    """Load with deferred casts; None for a class that computes with its weights during loading."""
    os.environ["HF_DEACTIVATE_ASYNC_LOAD"] = "1"  # DeferredCasts does not see other threads
    with DeferredCasts(files) as casts:
        module = from_pretrained(cls, files, dtype)
    return None if casts.computed else MappedModule(module, casts.dtypes(module))


def _compare_with_plan(mapped: MappedModule, component: Component, dtype: torch.dtype) -> None:
    """Warn if other weights stay in float32 than the plugin declares, which the plan relies on."""
    if dtype == torch.float32:
        return
    loaded_in = str(dtype).removeprefix("torch.")
    declared = {*component.float32.get(loaded_in, ())}
    wrong = {
        name: weight.numel() * (4 - dtype.itemsize)
        for name, weight in mapped.module.named_parameters()
        if is_plain(weight)
        and (mapped.dtype_of(weight) == torch.float32) != bool(declared & {*name.split(".")})
    }
    if wrong:
        _log.warning(
            "%s: the weights that stay in float32 when it is loaded in %s are not those that its "
            "Component.float32 declares; %d weights differ (such as %s); the plan is off by %s",
            component.name,
            loaded_in,
            len(wrong),
            next(iter(wrong)),
            format_size(sum(wrong.values())),
        )


def _loaded_from_file(cls: Any, files: ComponentFiles, dtype: torch.dtype) -> Any:
    """The module from a single file of weights, which is mapped; its layout was checked by the plan."""
    ((name, header),) = files.headers.items()
    path = files.folder / name
    memory = torch.from_file(str(path), shared=False, size=header.size, dtype=torch.uint8)

    def bytes_of(tensor: str) -> torch.Tensor:
        info = header.tensors[tensor]
        return memory[info.start : info.end]

    return load_converted(cls, checkpoint_of(header.tensors, bytes_of), files.own_folder, dtype)


def from_pretrained(cls: Any, files: ComponentFiles, dtype: torch.dtype) -> Any:
    """An object of ``cls`` from its files: a module in ``dtype``, or a tokenizer or scheduler.

    An ``nn.Module`` class without ``from_pretrained`` is created from ``config.json`` and the weights.

    Raises:
        ModelError: the weights in the files are not those of the class.

    """
    if files.configured is not None:
        loaded = _loaded_from_file(cls, files, dtype)
    else:
        loaded = _loaded_from_folder(cls, files, dtype)
    if isinstance(loaded, torch.nn.Module) and "transformers" in families(cls):
        _install_capturing_hooks(loaded)
    return loaded


def _loaded_from_folder(cls: Any, files: ComponentFiles, dtype: torch.dtype) -> Any:
    """As :func:`from_pretrained`, from a folder in the library's layout."""
    folder = files.own_folder
    module = isinstance(cls, type) and issubclass(cls, torch.nn.Module)
    if not hasattr(cls, "from_pretrained"):
        plain, found = open_plain(cls, files)
        check_agreement(cls, files.component, files.folder, found)
        return plain.to(dtype)
    if not module:
        return cls.from_pretrained(str(folder))
    options: dict[str, Any] = {"variant": files.variant} if files.variant else {}
    if has_own_loader(cls):
        return cls.from_pretrained(str(folder), **options).to(dtype)
    if "diffusers" in families(cls):
        options |= {"torch_dtype": dtype, "low_cpu_mem_usage": True}
    else:
        options |= {"dtype": dtype, **_following_index(cls, files)}
    if files.shapes.unread:
        raise ModelError(f"component '{files.component.name}': {files.shapes.unread}")
    quantisation = files.shapes.quantisation
    by_bitsandbytes = quantisation is not None and quantisation.method == BITSANDBYTES
    opening: AbstractContextManager[dict[str, Any]] = nullcontext({})
    if by_bitsandbytes:
        opening = bitsandbytes.mapping(cls)
    with opening as more:
        loaded, report = cls.from_pretrained(
            str(folder),
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            # mismatches are reported instead of raised, and refused below
            **{"ignore_mismatched_sizes": True, **options, **more},
        )
    check_agreement(cls, files.component, files.folder, Disagreement.of(report))
    if by_bitsandbytes:
        bitsandbytes.prepare(loaded)
    return loaded


def _install_capturing_hooks(model: torch.nn.Module) -> None:
    """Install transformers' hooks that record hidden states now, rather than at the model's first call.

    transformers marks the model once they are installed. Calls in lockstep have separate attributes, so each
    would install them again, and every layer's states would be recorded several times.
    """
    try:
        from transformers.utils.output_capturing import maybe_install_capturing_hooks
    except ImportError:  # versions that have none
        return
    maybe_install_capturing_hooks(model)


def has_own_loader(cls: Any) -> bool:
    """Whether its ``from_pretrained`` is its own, not diffusers' or transformers', and returns no report."""
    return hasattr(cls, "from_pretrained") and not families(cls) & {"diffusers", "transformers"}


def without_weights(cls: Any, config: Mapping[str, Any]) -> torch.nn.Module:
    """A component of diffusers or transformers on the device "meta", by its config.

    Raises:
        ModelError: its class is of neither.

    """
    from accelerate import init_empty_weights
    from diffusers import ConfigMixin

    if not families(cls) & {"diffusers", "transformers"}:
        raise ModelError(f"{cls.__name__} is a class of neither diffusers nor transformers")
    with init_empty_weights():
        if issubclass(cls, ConfigMixin):  # some classes in diffusers are transformers' own
            made: torch.nn.Module = cls.from_config(dict(config))
        else:
            made = cls(cls.config_class.from_dict(dict(config)))
    return made


def _following_index(cls: Any, files: ComponentFiles) -> dict[str, Any]:
    """Options for transformers to load the indexed shards, also if an unsharded file exists."""
    whole = f"model.{files.variant}.safetensors" if files.variant else "model.safetensors"
    if files.index is None or not (files.own_folder / whole).exists():
        return {}
    config = cls.config_class.from_pretrained(str(files.own_folder))
    config.transformers_weights = files.index
    return {"config": config}
