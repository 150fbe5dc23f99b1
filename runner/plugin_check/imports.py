"""Who imports a heavy library: told by the file and line that does."""

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


class Watch(MetaPathFinder):
    """Notes where each heavy library is first imported, while it is first in ``sys.meta_path``."""

    def __init__(self, package: str) -> None:
        """``package`` is the plugin's: of the files on the way to an import, its own is told."""
        self._package = package
        self.found: dict[str, str] = {}
        """Libraries, and ``"file, line n"``."""

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
            if {*HEAVY}.isdisjoint(packages):  # what a heavy library imports in its turn is no news
                at = packages.index(self._package) if self._package in packages else 0
                told = importers[at]
                self.found[fullname] = f"{told.f_code.co_filename}, line {told.f_lineno}"


def _importers(frame: FrameType | None) -> Iterator[FrameType]:
    """The code on the way to an import, the innermost first."""
    while frame is not None:
        if "importlib" not in frame.f_code.co_filename:
            yield frame
        frame = frame.f_back
