"""A module's weights with the modules that own them: tied weights count once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from runner.stream.blocks import OffloadedParameter, as_parameter, set_weight
from runner.stream.weights import is_plain, source_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch


class Owner(NamedTuple):
    """A module that has the weight under a name."""

    module: torch.nn.Module
    name: str
    full_name: str

    @property
    def weight(self) -> torch.Tensor:
        weight: torch.Tensor = getattr(self.module, self.name)
        return weight


@dataclass(frozen=True)
class OwnedWeight:
    """A parameter or buffer, and all that share its numbers."""

    weight: torch.Tensor
    owners: list[Owner] = field(default_factory=list)

    @property
    def is_plain(self) -> bool:
        return is_plain(self.weight)

    def put(self, value: torch.Tensor) -> None:
        """Have other memory for the weight everywhere; objects of plain ones stay the same."""
        for owner in self.owners:
            if self.is_plain:
                owner.weight.data = value
            elif owner.name in owner.module._buffers:  # noqa: SLF001
                set_weight(owner.module, owner.name, value)
            else:
                set_weight(owner.module, owner.name, as_parameter(value))

    def replace(self, placeholder: torch.nn.Parameter) -> None:
        """Put another object in its place everywhere."""
        for owner in self.owners:
            set_weight(owner.module, owner.name, placeholder)


def owned_weights(module: torch.nn.Module) -> Sequence[OwnedWeight]:
    """Each parameter and buffer of a module, without placeholders of weights that are not in memory."""
    found: dict[object, OwnedWeight] = {}
    for prefix, owner in module.named_modules(remove_duplicate=False):
        tables = (owner._parameters, owner._buffers)  # noqa: SLF001
        for name, weight in (entry for table in tables for entry in table.items()):
            if weight is not None and not isinstance(weight, OffloadedParameter):
                same = found.setdefault(identity(weight), OwnedWeight(weight))
                same.owners.append(Owner(owner, name, f"{prefix}.{name}".removeprefix(".")))
    return list(found.values())


def identity(weight: torch.Tensor) -> object:
    """Equal for weights that are the same numbers in memory, as tied weights are."""
    return tuple(map(_identity, source_of(weight, weight.dtype).tensors))


def _identity(tensor: torch.Tensor) -> object:
    if tensor.numel() == 0 or tensor.device.type == "meta":
        return id(tensor)
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype
