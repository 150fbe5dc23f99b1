"""Where a module's weights lie in the files that its library loaded it from.

Files and modules name weights differently, and libraries rename, tie and leave out: so names are not
compared at all. The library maps the files, and each weight's address tells its file and its offset there.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from runner.model.files import ComponentFiles

MAPS = Path("/proc/self/maps")


@dataclass(frozen=True)
class Place:
    """A weight in a file: ``offset`` and ``size`` in bytes."""

    file: Path
    offset: int
    size: int


def locate(module: torch.nn.Module, files: ComponentFiles) -> dict[str, Place]:
    """The places of a freshly opened module's weights, by name; what is not mapped from a file is left out.

    Only what agrees with a file's header in place and size counts. Empty where the system does not tell
    (``/proc`` is Linux's).
    """
    known = {
        ((files.folder / name).resolve(), tensor.start): tensor.end - tensor.start
        for name, header in files.headers.items()
        for tensor in header.tensors.values()
    }
    regions = _Regions({file for file, _ in known})
    found = {}
    for name, weight in module.named_parameters(remove_duplicate=False):
        place = regions.find(weight.data_ptr(), weight.numel() * weight.element_size())
        if (
            place is not None
            and weight.is_contiguous()
            and known.get((place.file, place.offset)) == place.size
        ):
            found[name] = place
    return found


class _Regions:
    """The parts of this process's memory that files are mapped to."""

    def __init__(self, files: set[Path]) -> None:
        self._mapped: list[tuple[int, int, int, Path]] = []
        names: Mapping[str, Path] = {str(file): file for file in files}
        lines = MAPS.read_text(errors="surrogateescape").splitlines() if MAPS.exists() else []
        for line in lines:
            addresses, _, offset, _, _, *path = line.split(maxsplit=5)
            if path and path[0] in names:
                start, end = (int(address, 16) for address in addresses.split("-"))
                self._mapped.append((start, end, int(offset, 16), names[path[0]]))
        self._mapped.sort()

    def find(self, address: int, size: int) -> Place | None:
        at = bisect.bisect_right(self._mapped, address, key=lambda region: region[0]) - 1
        if at < 0:
            return None
        start, end, offset, file = self._mapped[at]
        return Place(file, offset + address - start, size) if address + size <= end else None
