"""The accelerators that torch sees, as JSON: ``python -m runner.accelerator.probe KIND``.

In a process of its own, for it imports torch and uses each device, to measure what a context takes.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def main(kind: str) -> None:
    """Print a list of objects with ``name``, ``memory``, ``uuid`` and ``context``."""
    import torch

    from runner.accelerator.backends import backend_of
    from runner.accelerator.backends.generic import AcceleratorBackend

    module: Any = torch.get_device_module(kind)
    count = module.device_count() if module.is_available() else 0
    facts = []
    for number in range(count):
        device = backend_of(f"{kind}:{number}")
        assert isinstance(device, AcceleratorBackend)  # noqa: S101
        facts.append(
            {
                "name": device.name(),
                "memory": device.total_memory(),
                "uuid": device.uuid(),
                "context": device.context_size(),
            }
        )
    print(json.dumps(facts))  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1])
