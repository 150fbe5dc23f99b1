"""``stream``: blocks come from the checkpoint's own files when they run; what spare memory holds, stays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from runner.model.files import ComponentFiles
    from runner.placement.library import Opened
    from runner.protocol import Placing
    from runner.stream.stream import Stream


def load(
    opened: Opened, files: ComponentFiles, placing: Placing, stream: Stream, device: torch.device
) -> torch.nn.Module:
    """The component, the blocks that its placing names left to the stream, all else on the device."""
    module = opened.module
    stream.take(module, files, placing.names, lambda name: placing.tier(name) == "cpu", opened.dtype_of)
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            if not tensor.is_meta:
                tensor.data = opened.own(tensor, device)
    return module
