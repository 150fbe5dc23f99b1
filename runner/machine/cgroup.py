"""Memory limits enforced by the kernel: Linux control groups, versions 1 and 2.

A group counts more than a budget does: also the page cache (reclaimed before anything is killed), and
pages that the kernel holds for the process. Memory allocated before a process joined a group is counted in
its old group.
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

_UNLIMITED = 1 << 60  # version 1 has the largest multiple of a page for "no limit"
_PATIENCE = 2.0  # seconds: an exiting process stays in its group until its memory is freed
_NAME = re.compile(r"runner-(\d+)-\d+")
_numbers = itertools.count()


@dataclass(frozen=True)
class Mounts:
    """The place of this process in the hierarchy of memory groups."""

    version: int
    """1 or 2: the memory controller belongs to one of them, also where both are mounted."""
    top: Path
    """The mount point."""
    own: Path
    """The group of this process; ``top`` if a namespace hides it."""

    @classmethod
    def here(cls) -> Mounts | None:
        """Those of this process; None if there are none, as on other systems than Linux."""
        try:
            mountinfo, cgroup = (Path(f"/proc/self/{name}").read_bytes() for name in ("mountinfo", "cgroup"))
        except OSError:
            return None
        return cls.read(os.fsdecode(mountinfo), os.fsdecode(cgroup))

    @classmethod
    def read(cls, mountinfo: str, cgroup: str, root: Path = Path("/")) -> Mounts | None:
        """Parse the two files of ``/proc/self``; mount points are looked up under ``root``."""
        paths = {}
        for line in cgroup.splitlines():
            _, controllers, path = line.split(":", 2)
            paths.update(dict.fromkeys(controllers.split(","), path))
        # a controller that is listed with version 1 is bound there, and is absent from version 2
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
        """The group of this process and its parents, up to ``top``."""
        above = [place for place in self.own.parents if place.is_relative_to(self.top)]
        return [self.own, *above]


def _memory_mounts(mountinfo: str, version: int) -> list[tuple[str, str]]:
    """Mount points of the memory hierarchy, each with the path in it that is mounted there."""
    found = []
    for line in mountinfo.splitlines():
        mount, _, rest = line.partition(" - ")
        mounted, point = (_unescape(field) for field in mount.split(" ")[3:5])
        kind, _, options = rest.split(" ", 2)
        if kind == "cgroup2" if version == 2 else kind == "cgroup" and "memory" in options.split(","):
            found.append((point, mounted))
    return found


def _unescape(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def _within(mounted: str, path: str) -> PurePosixPath | None:
    """A group's path below the mounted one; None if it is elsewhere."""
    whole, base = PurePosixPath(path), PurePosixPath(mounted)
    inside = whole.relative_to(base) if whole.is_relative_to(base) else whole.relative_to("/")
    return None if ".." in inside.parts else inside


def container_limit(mounts: Mounts | None = None) -> int | None:
    """The lowest memory limit of this process in bytes; None if there is none.

    ``memory.high`` counts as one: the kernel slows a process that is above it almost to a halt.
    """
    mounts = mounts or Mounts.here()
    if mounts is None:
        return None
    names = ("memory.max", "memory.high") if mounts.version == 2 else ("memory.limit_in_bytes",)
    limits = [_number(place / name) for place in mounts.ancestry() for name in names]
    return min((limit for limit in limits if limit is not None and limit < _UNLIMITED), default=None)


class MemoryGroup:
    """A group of processes with a memory limit: the kernel kills processes that exceed it."""

    def __init__(self, folder: Path, version: int) -> None:
        self.folder = folder
        self._version = version

    @classmethod
    def make(cls, limit: int, mounts: Mounts | None = None) -> MemoryGroup | None:
        """Make a group limited to ``limit`` bytes (or our own limit, if that is lower), without swap.

        None if that is not possible: not Linux, not permitted, or the hierarchy cannot be extended.
        """
        mounts = mounts or Mounts.here()
        if mounts is None:
            return None
        # the new group may be outside of ours, and must not get more than we have
        limit = min(limit, container_limit(mounts) or limit)
        places = mounts.ancestry() if mounts.version == 2 else [mounts.own, mounts.top]
        for parent in dict.fromkeys(places):
            with contextlib.suppress(OSError):
                if mounts.version == 1 or _can_delegate_memory(parent):
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
                # inherited from the parent: with it, processes would hang instead of being killed
                group._write_if_there("memory.oom_control", 0)
        except OSError:
            group.close()
            raise
        return group

    def add(self, pid: int) -> bool:
        """Limit a process with all of its threads, from its next allocation on.

        False if it has exited, or the kernel refuses: then it is not limited.
        """
        try:
            self._write("cgroup.procs", pid)
        except OSError:
            return False
        return True

    def oom_kills(self) -> int:
        """The number of processes that the kernel has killed here for exceeding the limit.

        Kernels before 4.13 do not count kills in version 1. There the result is 1 if the limit was ever
        reached, which the page cache does too: it is meaningful only after a process ended by SIGKILL.
        """
        name = "memory.events" if self._version == 2 else "memory.oom_control"
        with contextlib.suppress(OSError, ValueError):
            fields = dict(line.split() for line in (self.folder / name).read_text("ascii").splitlines())
            if "oom_kill" in fields:
                return int(fields["oom_kill"])
        return min(1, _number(self.folder / "memory.failcnt") or 0)

    def close(self) -> None:
        """Remove the group, waiting up to 2 s for exiting processes; `sweep` removes what remains."""
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
    """Remove the groups of runner processes that have exited, near our own group; returns how many."""
    mounts = mounts or Mounts.here()
    removed = 0
    for place in mounts.ancestry() if mounts else []:
        # children of our ancestors and of our siblings: the places where `make` makes groups
        for pattern in ("runner-*-*", "*/runner-*-*"):
            for folder in place.glob(pattern):
                match = _NAME.fullmatch(folder.name)
                if match and not Path("/proc", match[1]).exists():
                    _remove(folder)
                    removed += not folder.exists()
    return removed


def _can_delegate_memory(parent: Path) -> bool:
    """Whether children of a version 2 group have the memory controller; enables it for them if possible.

    Only groups without processes of their own (and the root) can enable it. So our own group hardly ever
    can, but its nearest ancestor without processes.
    """
    if not os.access(parent / "cgroup.procs", os.W_OK):  # else no process could be moved below it
        return False
    delegated = parent / "cgroup.subtree_control"
    if "memory" in delegated.read_text("ascii").split():
        return True
    if "memory" not in (parent / "cgroup.controllers").read_text("ascii").split():
        return False
    delegated.write_text("+memory", "ascii")
    return True


def _new_folder(parent: Path) -> Path:
    while True:  # until the name is new: a dead process may have had our process id
        folder = parent / f"runner-{os.getpid()}-{next(_numbers)}"
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            return folder


def _remove(folder: Path) -> bool:
    """Remove a group; False if it still has processes, True if it is gone or may not be removed."""
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
