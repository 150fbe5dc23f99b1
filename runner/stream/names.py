"""Where a module's weights lie in the files that its library loaded it from.

Files and modules name weights differently, and libraries rename, tie and leave out: so names are not
compared at all. The library maps the files, and each weight's address tells its file and its offset there.
"""

from __future__ import annotations

import bisect
import ctypes
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from runner.stream.file_range import OpenFile

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import torch

    from runner.model.files import ComponentFiles

MAPS = Path("/proc/self/smaps")


@dataclass(frozen=True)
class FileRange:
    """A weight in a file: ``offset`` and ``size`` in bytes."""

    file: OpenFile
    offset: int
    size: int


@dataclass(frozen=True)
class _Region:
    """A part of this process's memory that a file is mapped to."""

    start: int
    end: int
    file: OpenFile
    offset: int
    written: bool = False
    """Whether the process has written to it: then it may differ from the file."""


def locate(module: torch.nn.Module, files: ComponentFiles) -> dict[str, FileRange]:
    """The places of a freshly opened module's weights, by name; what is not mapped from a file is left out.

    Only what agrees with a file's header in place and size counts, and with the file itself where the library
    wrote to it. Empty where the system does not tell (``/proc`` is Linux's).

    Raises:
        ModelError: a file cannot be opened.

    """
    if not MAPS.exists():
        return {}
    # opened before the maps are read, which mark a file that was replaced since it was mapped: so what is
    # read later is the very file that the weights which stay are from
    opened = {(files.folder / name).resolve(): header for name, header in files.headers.items()}
    regions = _Regions([OpenFile(path) for path in opened])
    known = {
        (path, tensor.start, tensor.end - tensor.start)
        for path, header in opened.items()
        for tensor in header.tensors.values()
    }
    found = {}
    for name, weight in module.named_parameters(remove_duplicate=False):
        place = regions.find(weight.data_ptr(), weight.numel() * weight.element_size())
        if (
            place is not None
            and weight.is_contiguous()
            and (place.file.path, place.offset, place.size) in known
        ):
            found[name] = place
    return found


def mappings(files: ComponentFiles) -> list[range]:
    """Addresses that a component's files are mapped to now; empty where the system does not tell."""
    if not MAPS.exists():
        return []
    paths = {str((files.folder / name).resolve()) for name in files.headers}
    lines = os.fsdecode(MAPS.with_name("maps").read_bytes()).split("\n")
    return [range(start, end) for start, end, _, path in filter(None, map(_mapping, lines)) if path in paths]


class _Regions:
    """The parts of this process's memory that files are mapped to."""

    def __init__(self, files: Sequence[OpenFile]) -> None:
        by_path = {str(file.path): file for file in files}
        lines = os.fsdecode(MAPS.read_bytes()).split("\n")
        self._regions = sorted(_regions(lines, by_path), key=lambda region: region.start)

    def find(self, address: int, size: int) -> FileRange | None:
        """The place of what lies at an address, if it is as in its file."""
        at = bisect.bisect_right(self._regions, address, key=lambda region: region.start) - 1
        if at < 0 or not size or address + size > self._regions[at].end:
            return None
        region = self._regions[at]
        place = FileRange(region.file, region.offset + address - region.start, size)
        return None if region.written and _differs(place, address) else place


def _regions(lines: Iterable[str], files: Mapping[str, OpenFile]) -> Iterator[_Region]:
    """The regions of these files: each has a line as in ``/proc/self/maps``, and below it its figures."""
    region: _Region | None = None
    for line in lines:
        if line.startswith("Anonymous:") and region is not None:
            yield replace(region, written=line.split()[1] != "0")
            region = None
        elif (mapping := _mapping(line)) is not None and mapping[3] in files:
            start, end, offset, path = mapping
            region = _Region(start, end, files[path], offset)


def _mapping(line: str) -> tuple[int, int, int, str] | None:
    """Start, end, offset and path of a line of ``/proc/self/maps`` that names a file."""
    addresses, _, rest = line.partition(" ")
    fields = rest.split(maxsplit=4)
    if len(fields) < 5 or addresses.endswith(":"):
        return None
    start, end = (int(address, 16) for address in addresses.split("-"))
    return start, end, int(fields[1], 16), fields[4]


def _differs(place: FileRange, address: int) -> bool:
    with place.file.path.open("rb") as file:
        file.seek(place.offset)
        return file.read(place.size) != ctypes.string_at(address, place.size)
