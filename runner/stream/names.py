"""Finds the file ranges of a module's weights, by the addresses that its library mapped the files to.

Names are not compared: files and modules name weights differently, and libraries rename, tie and omit some.
"""

from __future__ import annotations

import bisect
import ctypes
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from runner.stream.file_range import FileRange, OpenFile
from runner.stream.weights import source_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import torch

    from runner.files.header import Header
    from runner.model.files import ComponentFiles

MAPS = Path("/proc/self/smaps")


@dataclass(frozen=True)
class _Region:
    """A range of addresses in this process that a file is mapped to."""

    start: int
    end: int
    file: OpenFile
    offset: int
    written: bool = False
    """Whether the process has written to it, so that it may differ from the file."""


def locate(module: torch.nn.Module, files: ComponentFiles) -> dict[str, tuple[FileRange, ...]]:
    """The file ranges of a newly mapped module's weights, by name, without those that no file holds.

    Each has one for each tensor that it consists of. A range must be of one tensor in the file's header, or
    of a part of it, and must have the file's bytes if the process wrote to the pages.
    Empty on systems other than Linux, which have no ``/proc``.

    Raises:
        ModelError: a file cannot be opened.

    """
    if not MAPS.exists():
        return {}
    # open first, then read the maps, which mark replaced files: so the files that are read later are those
    # that the resident weights come from
    opened = {(files.folder / name).resolve(): header for name, header in files.headers.items()}
    regions = _Regions([OpenFile(path) for path in opened])
    known = _Extents(opened)
    found = {}
    for name, weight in module.named_parameters(remove_duplicate=False):
        ranges = [regions.of(tensor) for tensor in source_of(weight, weight.dtype).tensors]
        whole = tuple(range_ for range_ in ranges if range_ is not None and range_ in known)
        if len(whole) == len(ranges):
            found[name] = whole
    return found


class _Extents:
    """The extents of the tensors in some files."""

    def __init__(self, headers: Mapping[Path, Header]) -> None:
        self._extents = {
            path: sorted((tensor.start, tensor.end) for tensor in header.tensors.values())
            for path, header in headers.items()
        }

    def __contains__(self, range_: FileRange) -> bool:
        """Whether the range is inside one tensor."""
        extents = self._extents[range_.file.path]
        at = bisect.bisect_right(extents, range_.offset, key=lambda extent: extent[0]) - 1
        return at >= 0 and range_.offset + range_.size <= extents[at][1]


def mappings(files: ComponentFiles) -> list[range]:
    """Addresses that a component's files are mapped to now; empty on systems other than Linux."""
    if not MAPS.exists():
        return []
    paths = {str((files.folder / name).resolve()) for name in files.headers}
    lines = os.fsdecode(MAPS.with_name("maps").read_bytes()).split("\n")
    return [range(start, end) for start, end, _, path in filter(None, map(_mapping, lines)) if path in paths]


class _Regions:
    """The address ranges of this process that files are mapped to."""

    def __init__(self, files: Sequence[OpenFile]) -> None:
        by_path = {str(file.path): file for file in files}
        lines = os.fsdecode(MAPS.read_bytes()).split("\n")
        self._regions = sorted(_regions(lines, by_path), key=lambda region: region.start)

    def of(self, tensor: torch.Tensor) -> FileRange | None:
        """The file range that a tensor is mapped from, if it is contiguous, and memory and file agree."""
        if not tensor.is_contiguous():
            return None
        return self._find(tensor.data_ptr(), tensor.numel() * tensor.element_size())

    def _find(self, address: int, size: int) -> FileRange | None:
        at = bisect.bisect_right(self._regions, address, key=lambda region: region.start) - 1
        if at < 0 or not size or address + size > self._regions[at].end:
            return None
        region = self._regions[at]
        range_ = FileRange(region.file, region.offset + address - region.start, size)
        return None if region.written and _differs(range_, address) else range_


def _regions(lines: Iterable[str], files: Mapping[str, OpenFile]) -> Iterator[_Region]:
    """The regions of these files, parsed from the lines of ``/proc/self/smaps``."""
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


def _differs(range_: FileRange, address: int) -> bool:
    with range_.file.path.open("rb") as file:
        file.seek(range_.offset)
        return file.read(range_.size) != ctypes.string_at(address, range_.size)
