"""``device-map`` and ``sequential-offload``: a weight is brought for each operation that computes with it.

So is what a map of one's own keeps away from the device of a streamed component, outside of its blocks.
Weights on the tier ``disk`` stay in the checkpoint's own files: no second copy of the model is written, as
accelerate's ``offload_folder`` would be.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

from runner.stream.blocks import OffloadedParameter, set_weight
from runner.stream.names import MAPS, mappings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runner.model.files import ComponentFiles
    from runner.placement.library import MappedModule
    from runner.placements import ComponentPlacement

HOST = torch.device("cpu")
FARTHEST_FIRST = ("disk", "cpu", "device")

Owners = list[tuple[torch.nn.Module, str, str]]
"""Modules that have one and the same weight, its name there, and its whole name."""


class OnDemand(OffloadedParameter):
    """A weight that is elsewhere, and comes for each operation that computes with it."""

    materialize: Callable[[], torch.Tensor]
    """A copy on the device, in the dtype to compute in."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if _is_a_look(func) or cls._stays(func, args, kwargs):
            return super().__torch_function__(func, types, args, kwargs)
        if _writes(func) and isinstance(args[0], cls):
            raise RuntimeError(
                "a weight that a device map keeps away from the device was written to, which would be lost; "
                "placement resident keeps it"
            )
        args, kwargs = pytree.tree_map_only(cls, lambda weight: weight.materialize(), (args, kwargs or {}))
        return func(*args, **kwargs)


_OF_TENSORS = {"data", "T", "mT", "H", "mH", "real", "imag"}
"""Attributes that are tensors of the weight's numbers."""
_LOOKS = {
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


def _is_a_look(func: Any) -> bool:
    """Whether it asks for no numbers of a weight."""
    name = getattr(func, "__name__", "")
    if name == "__get__":
        return func.__self__.__name__ not in _OF_TENSORS
    return name in _LOOKS or (name == "__set__" and func.__self__.__name__ != "data")


def _writes(func: Any) -> bool:
    name = getattr(func, "__name__", "")
    in_place = name.endswith("_") and not name.endswith("__")
    return in_place or name in ("__set__", "__setitem__") or (name.startswith("__i") and name in _IN_PLACE)


_IN_PLACE = {
    f"__i{name}__" for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or")
}


def take_away(
    opened: MappedModule, files: ComponentFiles, device: torch.device, placing: ComponentPlacement
) -> None:
    """Leave weights that the placing's map has away from the device to be brought on demand.

    A weight with several names is as far away as any of them.
    """
    in_files = mappings(files)
    for weight, owners in _weights(opened.module).items():
        tier = _tier(placing, owners)
        if tier == "disk" and MAPS.exists() and not any(weight.data_ptr() in part for part in in_files):
            tier = "cpu"  # its library has made it, in RAM
        if isinstance(weight, OffloadedParameter) or tier == "device" or (tier == "cpu" and device == HOST):
            continue
        absent = OnDemand.of(weight, opened.dtype_of(weight), device)
        absent.materialize = _bringing(opened, weight, device, in_ram=tier == "cpu")
        for owner, name, _ in owners:
            set_weight(owner, name, absent)


def _bringing(
    opened: MappedModule, weight: torch.Tensor, device: torch.device, *, in_ram: bool
) -> Callable[[], torch.Tensor]:
    if not in_ram:
        return lambda: opened.copy(weight, device)
    held = opened.copy(weight, HOST)
    return lambda: held.to(device)


def _weights(module: torch.nn.Module) -> dict[torch.Tensor, Owners]:
    """Each parameter and buffer of a module, once, with all modules that have it."""
    found: dict[torch.Tensor, Owners] = defaultdict(list)
    for prefix, owner in module.named_modules(remove_duplicate=False):
        tables = (owner._parameters, owner._buffers)  # noqa: SLF001
        for name, weight in (entry for table in tables for entry in table.items()):
            if weight is not None:
                found[weight].append((owner, name, f"{prefix}.{name}".removeprefix(".")))
    return found


def _tier(placing: ComponentPlacement, owners: Sequence[tuple[torch.nn.Module, str, str]]) -> str:
    return min((placing.tier(name) for _, _, name in owners), key=FARTHEST_FIRST.index)
