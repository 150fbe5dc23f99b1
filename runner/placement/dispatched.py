"""``device-map`` and ``sequential-offload``: a weight is loaded for each operation that uses it.

The same holds for offloaded weights outside the blocks of a streamed component. Weights on the tier ``disk``
stay in the checkpoint's files; no second copy is written, as in accelerate's ``offload_folder``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

from runner.placement.owned import owned_weights
from runner.placements import DEVICE, DISK, RAM
from runner.stream.blocks import OffloadedParameter, as_parameter, set_weight
from runner.stream.names import MAPS, mappings
from runner.stream.weights import source_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runner.model.files import ComponentFiles
    from runner.placement.library import MappedModule
    from runner.placement.owned import OwnedWeight, Owner
    from runner.placements import ComponentPlacement
    from runner.stream.weights import WeightSource

HOST = torch.device("cpu")
FARTHEST_FIRST = (DISK, RAM, DEVICE)


class OnDemand(OffloadedParameter):
    """A placeholder that loads its weight for each operation that uses it."""

    materialize: Callable[[], torch.Tensor]
    """Returns the weight on the device, in the dtype that it computes in."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if _reads_no_values(func) or cls._stays(func, args, kwargs):
            return super().__torch_function__(func, types, args, kwargs)
        if _writes(func) and isinstance(args[0], cls):
            raise RuntimeError(
                "code writes to an offloaded weight, and the change would be lost; use placement resident"
            )
        args, kwargs = pytree.tree_map_only(cls, lambda weight: weight.materialize(), (args, kwargs or {}))
        return func(*args, **kwargs)


_TENSOR_ATTRIBUTES = {"data", "T", "mT", "H", "mH", "real", "imag"}
"""Attributes that are tensors of the weight's values."""
_METADATA = {
    "__hash__",
    "__len__",
    "_has_compatible_shallow_copy_type",
    "data_ptr",
    "dim",
    "element_size",
    "get_device",
    "is_complex",
    "is_contiguous",
    "is_floating_point",
    "ndimension",
    "nelement",
    "numel",
    "requires_grad_",
    "size",
    "storage_offset",
    "stride",
}


def _reads_no_values(func: Any) -> bool:
    """Whether a function needs only metadata of a weight."""
    name = getattr(func, "__name__", "")
    if name == "__get__":
        return func.__self__.__name__ not in _TENSOR_ATTRIBUTES
    return name in _METADATA or (name == "__set__" and func.__self__.__name__ != "data")


def _writes(func: Any) -> bool:
    name = getattr(func, "__name__", "")
    in_place = name.endswith("_") and not name.endswith("__")
    return in_place or name in ("__set__", "__setitem__") or (name.startswith("__i") and name in _IN_PLACE)


_IN_PLACE = {
    f"__i{name}__" for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or")
}


def offload(
    mapped: MappedModule, files: ComponentFiles, device: torch.device, placement: ComponentPlacement
) -> None:
    """Replace the weights that the placement's map offloads by placeholders that load on demand.

    A weight with several names is on the farthest of their tiers.
    """
    in_files = mappings(files)
    every = owned_weights(mapped.module)
    # layers of quantised weights may write to their bias
    quantised = {owner.module for owned in every if not owned.is_plain for owner in owned.owners}
    for owned in every:
        weight, tier = owned.weight, _tier(placement, owned.owners)
        if tier == DISK and MAPS.exists() and not _is_in(in_files, mapped.source_of(weight)):
            tier = RAM  # not in a file: the library created it in RAM
        if tier == DEVICE or (tier == RAM and device == HOST):
            continue
        if weight in mapped.added:
            continue
        materialize = _materializer(mapped, weight, device, in_ram=tier == RAM)
        if quantised.isdisjoint(owner.module for owner in owned.owners):
            offloaded = OnDemand.of(weight, mapped.dtype_of(weight), device)
            offloaded.materialize = materialize
            owned.replace(offloaded)
        else:
            _load_for_calls(owned, materialize, mapped.dtype_of(weight), device)


def _materializer(
    mapped: MappedModule, weight: torch.Tensor, device: torch.device, *, in_ram: bool
) -> Callable[[], torch.Tensor]:
    if not in_ram:
        return lambda: mapped.copy(weight, device)
    in_memory = mapped.copy(weight, HOST)
    source = source_of(in_memory, in_memory.dtype)
    return lambda: source.materialize([tensor.to(device) for tensor in source.tensors])


def _load_for_calls(
    owned: OwnedWeight, materialize: Callable[[], torch.Tensor], dtype: torch.dtype, device: torch.device
) -> None:
    """Load a weight for each call of a quantised layer, whose code asks what kind of weight it has."""
    placeholder = OffloadedParameter.of(owned.weight, dtype, device)
    owned.replace(placeholder)
    for module, name, _ in owned.owners:

        def load(module: torch.nn.Module, _args: object, name: str = name) -> None:
            set_weight(module, name, as_parameter(materialize()))

        def release(module: torch.nn.Module, _args: object, _output: object, name: str = name) -> None:
            set_weight(module, name, placeholder)

        module.register_forward_pre_hook(load)
        module.register_forward_hook(release, always_call=True)


def _is_in(mapped: Sequence[range], source: WeightSource) -> bool:
    return all(any(tensor.data_ptr() in part for part in mapped) for tensor in source.tensors)


def _tier(placement: ComponentPlacement, owners: Sequence[Owner]) -> str:
    return min((placement.tier(owner.full_name) for owner in owners), key=FARTHEST_FIRST.index)
