"""Imports modules with pieces of their sources replaced."""

from __future__ import annotations

import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import spec_from_loader
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType


class Change(NamedTuple):
    """A piece of a module's source, and what it is replaced by."""

    module: str
    old: str
    new: str


class _Changing(MetaPathFinder, Loader):
    """Imports modules with their sources changed."""

    def __init__(self, changes: Sequence[Change]) -> None:
        self._changes = changes

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        found = PathFinder.find_spec(fullname, path, target)
        if found is None or fullname not in {change.module for change in self._changes}:
            return None
        return spec_from_loader(fullname, self, origin=found.origin)

    def exec_module(self, module: ModuleType) -> None:
        source = Path(module.__spec__.origin or "").read_text(encoding="utf-8") if module.__spec__ else ""
        for _, old, new in (change for change in self._changes if change.module == module.__name__):
            assert source.count(old) == 1, (source.count(old), module.__name__, old)
            source = source.replace(old, new)
        exec(compile(source, module.__name__, "exec"), module.__dict__)


def import_changed(changes: Sequence[Change]) -> None:
    """Have modules imported with their sources changed; nothing may have imported them before."""
    assert not {change.module for change in changes} & {*sys.modules}
    sys.meta_path.insert(0, _Changing(changes))
