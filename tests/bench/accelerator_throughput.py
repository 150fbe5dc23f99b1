"""Parts of the accelerator's benchmark that compare ways to run the transformer, without the stages around it."""

from __future__ import annotations

import gc
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from bench import contenders
from bench.accelerator_peak import DevicePeak

from runner.accelerator.backends import backend_of, is_out_of_memory
from runner.accelerator.overheads import overheads_of
from runner.units import parse_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.accelerator_parts import Bench
    from bench.accelerator_results import Row

    from runner.accelerator.backends.generic import AcceleratorBackend

MOST = 2  # times the items of the largest group: the largest plain batch that is tried


class Throughput:
    """One process's measurements on the device."""

    def __init__(self, bench: Bench, peak: DevicePeak, *, limited: bool) -> None:
        self.backend: AcceleratorBackend = backend_of(bench.device)  # type: ignore[assignment]
        self.backend.check()
        self.backend.make_current()
        context = self.backend.context_size()
        if context is None:
            context = overheads_of(bench.device).context
        self._peak, self._limit = peak, bench.size.limit if limited else None
        self.steps = bench.size.steps
        limit = parse_size(bench.size.limit)
        if limited:
            self.backend.limit_memory(limit - context)
        transformer = bench.model / "transformer"
        self.work = contenders.Work(transformer, bench.device, limit, bench.size.side, context)

    def load(self, load: Callable[[], Any]) -> tuple[Any, float]:
        """What ``load`` returns, and its seconds, with memory that earlier loads held given back."""
        self.forget()
        started = time.perf_counter()
        loaded = load()
        self.backend.synchronize()
        return loaded, time.perf_counter() - started

    def row(self, what: str, run: contenders.Run, items: int, load: float | None) -> Row:
        """Run seeds 0 to ``items``, once the device is warm."""
        seeds = range(items)
        run(seeds[:1], 1)
        self.backend.synchronize()
        self.backend.reset_peak()
        started, at = time.perf_counter(), time.time()
        pictures = run(seeds, self.steps)
        self.backend.synchronize()
        seconds = time.perf_counter() - started
        return {
            "what": what,
            "items": items,
            "load": load,
            "seconds": seconds,
            "image_step": seconds / (items * self.steps),
            "limit": self._limit,
            "nvml": self._peak.between(at, time.time()),
            "allocator": self.backend.reserved_peak(),
            "group": "latents",
            "hashes": contenders.hashes(seeds, pictures),
            "must_equal": True,
        }

    def fits(self, run: contenders.Run, items: int) -> bool:
        """Whether a batch of so many items runs a step within the limit."""
        try:
            run(range(items), 1)
            self.backend.synchronize()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return False
        finally:
            self.forget()
        return True

    @staticmethod
    def forget() -> None:
        """Give back the memory of what is no longer used."""
        gc.collect()
        torch.accelerator.empty_cache()


def resident(bench: Bench) -> Iterator[Row]:
    """All weights on the device, without a limit."""
    with torch.inference_mode(), DevicePeak(bench.uuid) as peak:
        here = Throughput(bench, peak, limited=False)
        run, load = here.load(lambda: contenders.resident(here.work))
        yield here.row("resident, one by one", run, max(bench.size.items), load)


def stream(bench: Bench) -> Iterator[Row]:
    """The engine's streaming, with one item and with several in lockstep."""
    with torch.inference_mode(), DevicePeak(bench.uuid) as peak:
        here = Throughput(bench, peak, limited=True)
        for items in bench.size.items:
            run, load = here.load(partial(contenders.streamed, here.work, items, here.steps))
            yield here.row("runner, stream", run, items, load) | {"predicted": run.predicted}
            run.close()
            del run


def group_offload(bench: Bench, level: str) -> Iterator[Row]:
    """diffusers' group offload: items one by one, and in the largest plain batch that fits."""
    with torch.inference_mode(), DevicePeak(bench.uuid) as peak:
        here = Throughput(bench, peak, limited=True)
        transformer, load = here.load(lambda: contenders.group_offloaded(here.work, level=level))
        name = f"group offload, {level}"
        alone = contenders.one_by_one(here.work, transformer)
        yield here.row(f"{name}, one by one", alone, bench.size.items[1], load)
        batch = contenders.in_one_batch(here.work, transformer)
        most = MOST * max(bench.size.items)
        largest = largest_batch(partial(here.fits, batch), most)
        if not largest:
            yield {"what": f"{name}, a plain batch", "note": "not even one item fits"}
            return
        row = here.row(f"{name}, a plain batch", batch, largest, None)
        note = f"{most} are the most that was tried" if largest == most else "more do not fit"
        yield row | {"must_equal": False, "note": note}


def largest_batch(fits: Callable[[int], bool], most: int) -> int:
    """The largest number of items that fits, to an eighth; 0 if none does."""
    low, high = 0, 1
    while high <= most and fits(high):
        low, high = high, 2 * high
    if high > most:
        return low
    while high - low > max(1, low // 8):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


PARTS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "resident": resident,
    "stream": stream,
    "group-offload": partial(group_offload, level="leaf_level"),
    "group-offload-blocks": partial(group_offload, level="block_level"),
}
