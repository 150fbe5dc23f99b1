"""Files that are changed, cut or replaced while they are in use: their bytes are those of the start, or none."""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from towers import as_resident, as_streamed, make, numbers, together

from runner.errors import ModelError
from runner.stream.file_range import PAGE, OpenFile

if TYPE_CHECKING:
    from collections.abc import Callable


def disturbed(folder: Path, disturb: Callable[[Path], None]) -> torch.Tensor:
    """What a call computes whose files are disturbed after its first step."""
    tower, stream = as_streamed(folder)

    def call() -> torch.Tensor:
        x = tower(numbers(1))
        for file in folder.glob("*.safetensors"):
            disturb(file)
        return tower(tower(x))

    return together(stream, [call])[0]


def cut_to(size: int) -> Callable[[Path], None]:
    return lambda file: os.truncate(file, size)


def rewrite(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.seek(-4000, os.SEEK_END)
        opened.write(bytes(4000))


def replace(file: Path) -> None:
    other = file.with_suffix(".new")
    other.write_bytes(file.read_bytes()[:-4000] + bytes(4000))
    other.rename(file)


@pytest.mark.parametrize("size", [0, 100, PAGE, PAGE + 100, 3 * PAGE + 1])
def test_a_file_that_is_cut_while_it_is_in_use(tmp_path: Path, size: int) -> None:
    with pytest.raises(ModelError, match=r"model-0.safetensors was (cut off|changed) while it was in use"):
        disturbed(make(tmp_path / "tower"), cut_to(size))


def test_a_file_that_is_cut_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After whatever was looked at first: reads that come to its end do not go on for ever."""
    folder = make(tmp_path / "tower", hidden=(300, 300, 300))
    tower, stream = as_streamed(folder)
    tower(numbers(1), [0, 1])
    whole = os.preadv

    def preadv(*arguments: Any) -> int:
        os.truncate(folder / "model-0.safetensors", PAGE + 100)
        return whole(*arguments)

    monkeypatch.setattr(os, "preadv", preadv)
    with pytest.raises(ModelError, match=r"was cut off while it was in use; fetch it again") as raised:
        together(stream, [lambda: tower(numbers(1), [0])])
    assert raised.value.exit_code == 8


def test_a_file_that_is_rewritten_in_place(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"was changed while it was in use; run again when it is complete"):
        disturbed(make(tmp_path / "tower"), rewrite)


def test_a_file_that_is_rewritten_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make(tmp_path / "tower", hidden=(300, 300, 300))
    tower, stream = as_streamed(folder)
    tower(numbers(1), [0, 1])
    whole = os.preadv

    def preadv(*arguments: Any) -> int:
        rewrite(folder / "model-0.safetensors")
        return whole(*arguments)

    monkeypatch.setattr(os, "preadv", preadv)
    with pytest.raises(ModelError, match="was changed"):
        together(stream, [lambda: tower(numbers(1), [0])])


def test_a_file_that_is_replaced_is_read_on_as_it_was(tmp_path: Path) -> None:
    folder = make(tmp_path / "tower")
    resident = as_resident(folder)
    assert torch.equal(disturbed(folder, replace), resident(resident(resident(numbers(1)))))


@pytest.mark.parametrize("disturb", [rewrite, replace])
def test_a_file_that_is_disturbed_before_the_first_block(
    tmp_path: Path, disturb: Callable[[Path], None]
) -> None:
    """Weights that stay were read by then: the others must be of the same file."""
    folder = make(tmp_path / "tower")
    expected = as_resident(folder)(numbers(1))
    tower, stream = as_streamed(folder)
    disturb(folder / "model-0.safetensors")
    if disturb is replace:
        assert torch.equal(together(stream, [lambda: tower(numbers(1))])[0], expected)
    else:
        with pytest.raises(ModelError, match="was changed"):
            together(stream, [lambda: tower(numbers(1))])


def test_nobody_is_reported_of_a_block_that_nobody_waits_for(tmp_path: Path) -> None:
    folder = make(tmp_path / "tower")
    resident = as_resident(folder)
    tower, stream = as_streamed(folder)
    tower(numbers(1), [0, 1, 2, 3])  # the last one is being read ahead
    tower(numbers(1), [4])
    rewrite(folder / "model-0.safetensors")
    tower(numbers(1), [4])  # is there
    with pytest.raises(ModelError):
        tower(numbers(1), [2])
    assert torch.equal(tower(numbers(1), []), resident(numbers(1), []))
    assert stream.active


def test_files_are_closed_with_the_stream(tmp_path: Path) -> None:
    file = next(make(tmp_path / "tower").iterdir())
    before = descriptors()
    opened = OpenFile(file)
    assert len(descriptors() - before) in (1, 2)
    del opened
    assert descriptors() == before


def descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}
