"""Run directories described without running anything, and what the page of one holds."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from runner.events import ItemFinished, OutOfMemory, RunFinished, RunStarted, StageFinished, StageStarted
from runner.files.provenance import write_with_provenance
from runner.report import write
from runner.rundir.directory import RunDirectory
from runner.rundir.journal import Events, Journal

if TYPE_CHECKING:
    from pathlib import Path

GIB = 1 << 30
PEAKS: dict[str, int | None] = {"vram": None, "ram": GIB}
# the smallest PNG: one grey pixel
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55"
    "0000000a49444154789c636800000082008177cd72b60000000049454e44ae426082"
)


def data_of(page: Path) -> dict[str, Any]:
    """The data in a page, read as a browser finds them."""
    found = re.search(
        r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL
    )
    data: dict[str, Any] = json.loads(found[1], parse_constant=_refuse)  # type: ignore[index]
    return data


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def card(item: str, data: dict[str, Any]) -> dict[str, Any]:
    return next(card for card in data["cards"] if card["id"] == item)


class Telling:
    """A run of one stage, ``draw``, written to a journal event by event."""

    def __init__(self, folder: Path, name: str = "reported") -> None:
        self.directory = RunDirectory(folder / name)
        self.events = Events()
        self.journal = Journal(self.directory.journal)
        self.events.listeners.append(self.journal)
        self.outputs: list[str] = []

    def start(self, items: int, *, content: str = "", overridden: bool = False) -> None:
        self.outputs = []
        self.events.emit(
            RunStarted(
                run="reported",
                manifest="reported.toml",
                stages=["draw"],
                items=items,
                content=content,
                overridden=overridden,
            )
        )
        self.events.emit(
            StageStarted(
                stage="draw",
                items=items,
                placement="resident",
                predicted=PEAKS,
                budget={"vram": None, "ram": 2 * GIB},
                device="cpu",
                dtype="float32",
                last=True,
            )
        )

    def item(
        self,
        item: str,
        key: str,
        error: str | None = None,
        suffix: str = ".png",
        data: bytes | None = None,
        **more: Any,
    ) -> None:
        reported = {"params": {"prompt": f"a picture of {item}", "seed": 7}, "seconds": 0.5, **more}
        if error is None:
            path = self.directory.output(item, key, "", suffix)
            if data is None:
                data = PIXEL if suffix == ".png" else b"text"
            write_with_provenance(
                path, data, {"key": key, "lineage": {"draw": {"params": reported["params"]}}}
            )
            self.outputs.append(str(path))
        status = "failed" if error else "done"
        self.events.emit(
            ItemFinished(stage="draw", item=item, key=key, status=status, error=error, **reported)
        )

    def fall(self, held: dict[str, int | None]) -> None:
        """Have the stage run out of memory and go on streaming."""
        self.events.emit(
            OutOfMemory(
                stage="draw", placement="resident", predicted=held, measured=held, error="no", next="stream"
            )
        )

    def end(self, code: int = 0) -> None:
        self.events.emit(
            StageFinished(
                stage="draw",
                seconds=8.0,
                done=len(self.outputs),
                cached=0,
                predicted=PEAKS,
                measured=PEAKS,
                memory=[(second, GIB) for second in range(8)],
            )
        )
        self.events.emit(RunFinished(exit_code=code, outputs=self.outputs, seconds=9.0))

    def page(self) -> Path:
        return write(self.directory.path)
