"""Bytes from files: wherever they lie, and however slowly they come."""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from towers import as_resident, as_streamed, make, numbers, stored_bytes, together

from runner.errors import ModelError
from runner.stream import reader
from runner.stream.file_range import PAGE

if TYPE_CHECKING:
    from collections.abc import Callable

DTYPES = [torch.float32, torch.bfloat16]
SHM = Path("/dev/shm")


def equal(folder: Path, dtype: torch.dtype = torch.float32) -> bool:
    """Whether two calls in lockstep compute what resident weights do."""
    resident, (tower, stream) = as_resident(folder, dtype), as_streamed(folder, dtype=dtype)
    calls = [lambda n=n: tower(tower(numbers(n, n + 1, dtype))) for n in range(2)]
    expected = [resident(resident(numbers(n, n + 1, dtype))) for n in range(2)]
    return all(torch.equal(a, b) for a, b in zip(together(stream, calls), expected, strict=True))


@pytest.mark.parametrize("stored", DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shards", [1, 3])
def test_data_at_any_offset(tmp_path: Path, stored: torch.dtype, dtype: torch.dtype, shards: int) -> None:
    starts = set()
    for pad in (0, 8, 1000, 2000):
        folder = make(tmp_path / f"pad{pad}", dtype=stored, shards=shards, pad=pad)
        for file in folder.iterdir():
            starts.add((8 + int.from_bytes(file.read_bytes()[:8], "little")) % PAGE)
        assert equal(folder, dtype)
    assert len(starts) >= 4
    assert 0 not in starts


def test_weights_of_several_chunks_and_gaps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads of two pages, so that each weight takes some; what lies far apart is not read along."""
    monkeypatch.setattr(reader, "CHUNK", 2 * PAGE)
    monkeypatch.setattr(reader, "GAP", PAGE)
    hidden = (300, 3, 411, 700)
    for shards in (1, 2):
        assert equal(make(tmp_path / str(shards), hidden=hidden, shards=shards))


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[int]]:
    """Have the system return at most so many bytes a read; what it returned is noted."""

    def cut(most: int) -> list[int]:
        counts: list[int] = []
        whole = os.preadv

        def preadv(descriptor: int, buffers: Any, offset: int) -> int:
            counts.append(min(whole(descriptor, buffers, offset), most))
            buffers[0][counts[-1] :] = b"\xff" * (len(buffers[0]) - counts[-1])
            return counts[-1]

        monkeypatch.setattr(os, "preadv", preadv)
        return counts

    return cut


@pytest.mark.parametrize("most", [1000, PAGE, PAGE + 1, 3 * PAGE])
def test_short_reads_are_gone_on_with(tmp_path: Path, short: Any, most: int) -> None:
    folder = make(tmp_path / "tower", hidden=(300, 200))
    counts = short(most)
    assert equal(folder)
    assert len(counts) > stored_bytes(folder) / most


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_file_system_without_direct_reads(dtype: torch.dtype) -> None:
    if not SHM.is_dir():
        pytest.skip("no tmpfs here")
    folder = make(SHM / f"tower-{os.getpid()}")
    try:
        assert equal(folder, dtype)
    finally:
        shutil.rmtree(folder)


def test_direct_reads_that_are_refused_when_they_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    whole = os.preadv

    def preadv(descriptor: int, buffers: Any, offset: int) -> int:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return whole(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", preadv)
    assert equal(make(tmp_path / "tower"))


def test_an_error_of_the_disk_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tower, stream = as_streamed(make(tmp_path / "tower"))
    tower(numbers(1), [0, 1])  # both slots are filled: what was asked for at the start is there

    def preadv(*_: Any) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "preadv", preadv)
        for _ in range(2):  # into one slot, and into the other
            with pytest.raises(ModelError, match=r"model-0.safetensors cannot be read: Input/output error"):
                together(stream, [lambda: tower(numbers(1))])
    (result,) = together(stream, [lambda: tower(numbers(1))])  # it was a loose cable
    assert torch.equal(result, as_resident(tmp_path / "tower")(numbers(1)))


EXITS = """
import sys
from pathlib import Path
import torch
from towers import as_streamed, make, numbers

tower, stream = as_streamed(make(Path(sys.argv[1]) / "tower", hidden=(200_000,) * 3))
tower(numbers(1), [0])  # and the next one is being read
print("done")
"""


def test_a_process_may_end_while_a_block_is_read(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(EXITS), str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_nothing_is_under_way_when_an_error_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_by: Callable[..., None]
) -> None:
    """A helper that still reads would write into a slot that holds another block by then."""
    monkeypatch.setattr(reader, "CHUNK", PAGE)
    monkeypatch.setattr(reader, "GAP", 1)
    folder = make(tmp_path / "tower", hidden=(300, 300))
    whole = os.preadv
    begun, never, under_way = threading.Event(), threading.Event(), set[int]()
    waited: list[None] = []

    def preadv(*arguments: Any) -> int:
        thread = threading.current_thread()
        if thread.name.startswith("slots"):  # the first of the readers: a helper of it has begun
            assert begun.wait(30)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        under_way.add(thread.ident or 0)
        begun.set()
        never.wait(0.0 if waited else 0.3)
        waited.append(None)
        under_way.remove(thread.ident or 0)
        return whole(*arguments)

    read_by(preadv)
    tower, stream = as_streamed(folder)  # begins to read
    with pytest.raises(ModelError, match="Input/output error"):
        together(stream, [lambda: tower(numbers(1))])
    assert not under_way


def test_an_error_of_a_helper_is_reported_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_by: Callable[..., None]
) -> None:
    monkeypatch.setattr(reader, "CHUNK", PAGE)
    monkeypatch.setattr(reader, "GAP", 1)
    folder = make(tmp_path / "tower", hidden=(300, 300))
    whole, failed = os.preadv, threading.Event()

    def preadv(*arguments: Any) -> int:
        if not threading.current_thread().name.startswith("slots"):
            failed.set()
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        assert failed.wait(30)
        return whole(*arguments)

    read_by(preadv)
    tower, stream = as_streamed(folder)  # begins to read
    with pytest.raises(ModelError, match="Input/output error"):
        together(stream, [lambda: tower(numbers(1))])
