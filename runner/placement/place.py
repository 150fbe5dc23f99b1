"""The one door to placements: a component goes in with its placement's name, a module comes out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runner.errors import BudgetError
from runner.placement import resident

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import torch

PLACEMENTS: dict[str, Callable[[Any, Path, torch.dtype, torch.device], Any]] = {
    "resident": resident.load,
}


def place(placement: str, cls: Any, folder: Path, dtype: torch.dtype, device: torch.device) -> Any:
    """Load a component as its placement says.

    Raises:
        BudgetError: the placement is not to be had in this version.

    """
    if placement not in PLACEMENTS:
        known = ", ".join(PLACEMENTS)
        raise BudgetError(f"placement '{placement}' is not built yet; this version has: {known}")
    return PLACEMENTS[placement](cls, folder, dtype, device)
