"""Finds the file and line that imports a heavy library."""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType, ModuleType

HEAVY = (
    "accelerate",
    "cv2",
    "diffusers",
    "jax",
    "numpy",
    "pandas",
    "scipy",
    "sklearn",
    "tensorflow",
    "torch",
    "torchvision",
    "transformers",
)


class ImportWatch(MetaPathFinder):
    """While entered, records where each heavy library is first imported."""

    def __init__(self, package: str) -> None:
        """``package`` is the plugin's: of the stack of an import, its innermost line is recorded."""
        self._package = package
        self.found: dict[str, str] = {}
        """``"FILE, line N"`` by library."""

    def __enter__(self) -> Self:
        sys.meta_path.insert(0, self)
        return self

    def __exit__(self, *_: object) -> None:
        sys.meta_path.remove(self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> None:
        del path, target
        if fullname in HEAVY and fullname not in self.found:
            importers = list(_importers(sys._getframe(1)))  # noqa: SLF001
            packages = [str(f.f_globals.get("__name__", "")).partition(".")[0] for f in importers]
            if {*HEAVY}.isdisjoint(packages):  # not what a heavy library itself imports
                at = packages.index(self._package) if self._package in packages else 0
                code = importers[at]
                self.found[fullname] = f"{code.f_code.co_filename}, line {code.f_lineno}"


def _importers(frame: FrameType | None) -> Iterator[FrameType]:
    """The frames that led to an import, innermost first, without importlib's."""
    while frame is not None:
        if "importlib" not in frame.f_code.co_filename:
            yield frame
        frame = frame.f_back
