"""Plays back an item's encoded inputs, in the dtypes of the stages that they are for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from runner_diffusers.replay.encoding import Playback, ReplayError
from runner_diffusers.replay.values import DTYPES

if TYPE_CHECKING:
    from runner.api import Bundled
    from runner_diffusers.replay.call import Parts


def playback(encoded: Bundled, parts: Parts) -> Playback:
    """What the encode stage recorded, cast where that stage computed in another dtype.

    A method's result, such as a prompt's embeddings, goes to the denoiser; a component's stays its own.

    Raises:
        ReplayError: it was not written by the encode stage.

    """
    values: Any = encoded.values
    if (
        not isinstance(values, dict)
        or not isinstance(values.get("calls"), dict)
        or values.get("dtype") not in DTYPES
    ):
        raise ReplayError("its encoded inputs are not what the encode stage writes")
    made_in = DTYPES[values["dtype"]]

    def cast(tensor: torch.Tensor, component: str) -> torch.Tensor:
        wanted = parts.dtypes[component] if component else parts.denoiser_dtype
        # a save_dtype may have cast the tensors, so that they are of neither
        is_numbers = tensor.is_floating_point() and tensor.dtype != torch.float32
        return tensor.to(wanted) if tensor.dtype == made_in or is_numbers else tensor

    alike = {made_in, *parts.dtypes.values()}
    own = {
        name for name, part in parts.components.items() if isinstance(part, torch.nn.Module)
    } - parts.shells
    return Playback(encoded.tensors, values["calls"], parts.device, cast, compares=len(alike) == 1, own=own)
