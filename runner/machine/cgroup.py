"""Limits that the kernel keeps: Linux control groups, versions 1 and 2.

What a group counts is wider than what a budget counts: the page cache (given back before anything is
killed), and pages that the kernel itself holds for the process. What was allocated before a process joined
stays with the group it came from.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_UNLIMITED = 1 << 60  # version 1 writes "none" as the largest multiple of a page
_PATIENCE = 2.0  # seconds: an exiting process leaves its group only when its memory is freed
_NAME = re.compile(r"runner-(\d+)-\d+")
_numbers = itertools.count()


@dataclass(frozen=True)
class Mounts:
    """Where this process stands in the hierarchy of groups that limits memory."""

    version: int
    """1 or 2: memory belongs to one of the two, also where both are mounted."""
    top: Path
    own: Path
    """This process's group; ``top`` where a namespace hides it."""

    @classmethod
    def here(cls) -> Mounts | None:
        """Those of this process; None where there are none, as on other systems than Linux."""
        try:
            mountinfo, cgroup = (Path(f"/proc/self/{name}").read_bytes() for name in ("mountinfo", "cgroup"))
        except OSError:
            return None
        return cls.read(os.fsdecode(mountinfo), os.fsdecode(cgroup))

    @classmethod
    def read(cls, mountinfo: str, cgroup: str, root: Path = Path("/")) -> Mounts | None:
        """What the two files of ``/proc/self`` say; mount points are looked up under ``root``."""
        paths = {}
        for line in cgroup.splitlines():
            _, controllers, path = line.split(":", 2)
            paths.update(dict.fromkeys(controllers.split(","), path))
        # a controller is listed with version 1 if it is bound there, and then version 2 has it not
        version, path = (1, paths["memory"]) if "memory" in paths else (2, paths.get("", "/"))
        found = [
            (root / point.lstrip("/"), _within(mounted, path))
            for point, mounted in _memory_mounts(mountinfo, version)
        ]
        for top, inside in found:
            if inside is not None and (top / inside).is_dir():
                return cls(version, top, top / inside)
        return cls(version, found[0][0], found[0][0]) if found else None

    def ancestry(self) -> list[Path]:
        """The own group and those around it, from the inside out."""
        above = [place for place in self.own.parents if place.is_relative_to(self.top)]
        return [self.own, *above]


def _memory_mounts(mountinfo: str, version: int) -> list[tuple[str, str]]:
    """Mount points of the hierarchy, each with the path in it that is mounted there."""
    found = []
    for line in mountinfo.splitlines():
        about, _, rest = line.partition(" - ")
        mounted, point = (_unescape(field) for field in about.split(" ")[3:5])
        kind, _, options = rest.split(" ", 2)
        if kind == "cgroup2" if version == 2 else kind == "cgroup" and "memory" in options.split(","):
            found.append((point, mounted))
    return found


def _unescape(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def _within(mounted: str, path: str) -> PurePosixPath | None:
    """A group's path below what is mounted; None if it lies elsewhere."""
    whole, base = PurePosixPath(path), PurePosixPath(mounted)
    inside = whole.relative_to(base) if whole.is_relative_to(base) else whole.relative_to("/")
    return None if ".." in inside.parts else inside


def container_limit(mounts: Mounts | None = None) -> int | None:
    """Bytes of the tightest memory limit that this process lives under; None if there is none.

    ``memory.high`` counts as one: the kernel slows a process that is above it almost to a halt.
    """
    mounts = mounts or Mounts.here()
    if mounts is None:
        return None
    names = ("memory.max", "memory.high") if mounts.version == 2 else ("memory.limit_in_bytes",)
    limits = [_number(place / name) for place in mounts.ancestry() for name in names]
    return min((limit for limit in limits if limit is not None and limit < _UNLIMITED), default=None)


class MemoryGroup:
    """A group of processes with a limit, which the kernel keeps by killing what goes over."""

    def __init__(self, folder: Path, version: int) -> None:
        self.folder = folder
        self._version = version

    @classmethod
    def make(cls, limit: int, mounts: Mounts | None = None) -> MemoryGroup | None:
        """A new group of at most ``limit`` bytes of memory and no swap, under no wider limit than ours.

        None where none can be made: not Linux, not permitted, or the hierarchy is not ours to extend.
        """
        mounts = mounts or Mounts.here()
        if mounts is None:
            return None
        # a neighbour of our own group is not under its limit: it must not get more than we have
        limit = min(limit, container_limit(mounts) or limit)
        places = mounts.ancestry() if mounts.version == 2 else [mounts.own, mounts.top]
        for parent in dict.fromkeys(places):
            with contextlib.suppress(OSError):
                if mounts.version == 1 or _hands_memory_down(parent):
                    return cls._make_in(parent, mounts.version, limit)
        return None

    @classmethod
    def _make_in(cls, parent: Path, version: int, limit: int) -> MemoryGroup:
        group = cls(_new_folder(parent), version)
        try:
            if version == 2:
                group._write("memory.max", limit)
                group._write_if_there("memory.swap.max", 0)
            else:
                group._write("memory.limit_in_bytes", limit)
                group._write_if_there("memory.memsw.limit_in_bytes", limit)  # memory and swap together
                group._write_if_there("memory.swappiness", 0)  # where swap is not counted
                # a group inherits this from its parent, and would hang where it should be killed
                group._write_if_there("memory.oom_control", 0)
        except OSError:
            group.close()
            raise
        return group

    def add(self, pid: int) -> bool:
        """Put a process, with all its threads, under the limit from its next allocation on.

        False if it has gone, or the kernel refuses: it is not limited then.
        """
        try:
            self._write("cgroup.procs", pid)
        except OSError:
            return False
        return True

    def oom_kills(self) -> int:
        """How many processes the kernel has killed here for going over the limit.

        Kernels before 4.13 do not count kills in version 1. There the answer is 1 if the limit was ever
        reached, which the page cache does too: it tells something only of a process that SIGKILL ended.
        """
        name = "memory.events" if self._version == 2 else "memory.oom_control"
        with contextlib.suppress(OSError, ValueError):
            fields = dict(line.split() for line in (self.folder / name).read_text("ascii").splitlines())
            if "oom_kill" in fields:
                return int(fields["oom_kill"])
        return min(1, _number(self.folder / "memory.failcnt") or 0)

    def close(self) -> None:
        """Remove the group, waiting up to 2 s for processes that are exiting; `sweep` gets what stays."""
        deadline = time.monotonic() + _PATIENCE
        while not _remove(self.folder) and time.monotonic() < deadline:
            time.sleep(0.01)

    def _write(self, name: str, value: int) -> None:
        (self.folder / name).write_text(str(value), "ascii")

    def _write_if_there(self, name: str, value: int) -> None:
        with contextlib.suppress(OSError):
            if (self.folder / name).exists():
                self._write(name, value)


def sweep(mounts: Mounts | None = None) -> int:
    """Remove the groups of runner processes that are gone, near our own group; returns how many."""
    mounts = mounts or Mounts.here()
    removed = 0
    for place in mounts.ancestry() if mounts else []:
        # children of our ancestors and of our siblings: where a runner like this one makes its groups
        for pattern in ("runner-*-*", "*/runner-*-*"):
            for folder in place.glob(pattern):
                match = _NAME.fullmatch(folder.name)
                if match and not Path("/proc", match[1]).exists():
                    _remove(folder)
                    removed += not folder.exists()
    return removed


def _hands_memory_down(parent: Path) -> bool:
    """Whether children of a group of version 2 get the memory controller, asking for it if need be.

    A group that has processes of its own may not hand it down (the root of all may), so that our own group
    hardly ever can: the nearest one that holds only groups does.
    """
    if not os.access(parent / "cgroup.procs", os.W_OK):  # else no process of ours could move below it
        return False
    handed_down = parent / "cgroup.subtree_control"
    if "memory" in handed_down.read_text("ascii").split():
        return True
    if "memory" not in (parent / "cgroup.controllers").read_text("ascii").split():
        return False
    handed_down.write_text("+memory", "ascii")
    return True


def _new_folder(parent: Path) -> Path:
    while True:  # until the name is new: a dead process may have had our number
        folder = parent / f"runner-{os.getpid()}-{next(_numbers)}"
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            return folder


def _remove(folder: Path) -> bool:
    """Remove a group; False if it has processes still, True if it is gone or not ours to remove."""
    try:
        folder.rmdir()
    except OSError as error:
        return error.errno != errno.EBUSY
    return True


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text("ascii"))
    except (OSError, ValueError):  # absent, or "max"
        return None
