"""What calls set for their thread is their own: neighbours change it, and are changed, without a trace."""

# mypy: disable-error-code="attr-defined,misc,no-untyped-call"

# ruff: noqa: NPY002 - the legacy generator is what careless code draws from

from __future__ import annotations

import contextlib
import io
import random
import sys
import time
import warnings
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from towers import WIDTH, as_resident, as_streamed, make, numbers, together

from runner.stream.context_switcher import ContextSwitcher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from runner.stream.stream import Stream

NAME: ContextVar[str] = ContextVar("NAME", default="nobody")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("towers") / "tower", hidden=(24, 24, 24))


@pytest.fixture
def tower(folder: Path) -> Any:
    return as_resident(folder)


@pytest.fixture
def streamed(folder: Path) -> tuple[Any, Stream]:
    return as_streamed(folder)


def autocast(tower: Any, n: int) -> list[Any]:
    x = tower(numbers(n))
    with torch.autocast("cpu", torch.bfloat16 if n % 2 else torch.float16):
        y = tower(x)
        reported = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")
        with torch.autocast("cpu", enabled=False):
            z = tower(y.float())
    return [x, y, z, tower(x), reported, torch.is_autocast_enabled("cpu")]


def gradients(tower: Any, n: int) -> list[Any]:
    reported = []
    with torch.no_grad() if n % 2 else torch.enable_grad():
        tower(numbers(n))
        reported.append(torch.is_grad_enabled())
        with torch.set_grad_enabled(n % 3 == 0):
            tower(numbers(n))
            reported.append(torch.is_grad_enabled())
        reported.append(torch.is_grad_enabled())
    return [*reported, torch.is_grad_enabled()]


def inference(tower: Any, n: int) -> list[Any]:
    reported = []
    with torch.inference_mode(n % 2 == 0):
        x = tower(numbers(n))
        reported.append((torch.is_inference_mode_enabled(), x.is_inference(), torch.is_grad_enabled()))
        with torch.inference_mode(n % 3 == 0), torch.autocast("cpu", torch.bfloat16):
            x = tower(numbers(n))
            reported.append((torch.is_inference_mode_enabled(), x.is_inference(), x.dtype))
    x = tower(numbers(n))
    return [*reported, x, torch.is_inference_mode_enabled(), x.is_inference(), torch.is_grad_enabled()]


def draws(tower: Any, n: int) -> list[Any]:
    from diffusers.utils.torch_utils import randn_tensor  # here, since it takes a second

    random.seed(n)
    np.random.seed(n)
    torch.manual_seed(n)
    drawn: list[Any] = []
    for _ in range(3):
        tower(numbers(n))
        drawn.append(randn_tensor((2, 2), torch.manual_seed(n) if n == 2 else None))
        if n % 2:  # an odd number of normals: both libraries keep a second one
            drawn += [np.random.randn(), np.random.rand(), random.gauss(0, 1)]
        tower(numbers(n))
        drawn += [random.random(), np.random.randn() if n % 3 == 0 else np.random.rand()]
        if n % 2:  # and nothing else in this turn
            tower(numbers(n))
            drawn.append(random.gauss(0, 1))
    return drawn


def another_generator(tower: Any, n: int) -> list[Any]:
    if n == 1:
        np.random.set_bit_generator(np.random.PCG64(5))
    else:
        np.random.seed(n)
    drawn = []
    for _ in range(3):
        tower(numbers(n))
        drawn.append(np.random.rand() if n else np.random.randn())
    return [*drawn, type(np.random.get_bit_generator()).__name__]


def context(tower: Any, n: int) -> list[Any]:
    reported = [NAME.get()]
    NAME.set(f"call {n}")
    tower(numbers(n))
    token = NAME.set(f"{NAME.get()}, twice")
    tower(numbers(n))
    reported.append(NAME.get())
    NAME.reset(token)
    tower(numbers(n))
    return [*reported, NAME.get()]


def warned(tower: Any, n: int) -> list[Any]:
    reported = []
    if n == 1:
        warnings.simplefilter("ignore")  # and never taken back
    for _ in range(2):
        with warnings.catch_warnings(record=True) as caught:
            if n:
                warnings.simplefilter("always" if n == 2 else "default")
            tower(numbers(n))
            if n != 0:
                warnings.warn(f"of {n}", stacklevel=1)
            tower(numbers(n))
        reported.append([str(warning.message) for warning in caught])
    try:
        warnings.warn("is it an error?", stacklevel=1)
    except UserWarning:
        reported.append(["an error"])
    return reported


def elsewhere(tower: Any, n: int) -> list[Any]:
    """Settings of the process: where lines go, what numbers and tensors are by default, which kernel runs."""
    lines = io.StringIO()
    with contextlib.redirect_stdout(lines) if n else contextlib.nullcontext():
        tower(numbers(n))
        print(f"a line of {n}")
    if n == 1:
        torch.set_default_dtype(torch.float64)
    with torch.device("meta") if n == 2 else contextlib.nullcontext():
        tower(numbers(n, 2) if n != 2 else torch.zeros(2, WIDTH, device="cpu"))
        made = torch.ones(2)
    backend = torch.nn.attention.SDPBackend
    with torch.nn.attention.sdpa_kernel([backend.MATH] if n else [backend.FLASH_ATTENTION]):
        tower(numbers(n))
        kernels = torch.backends.cuda.math_sdp_enabled(), torch.backends.cuda.flash_sdp_enabled()
    tower(numbers(n))
    return [lines.getvalue(), made.dtype, made.device, kernels, torch.ones(1).device]


@contextlib.contextmanager
def set_back() -> Iterator[None]:
    """Nothing outlives a call that is run by itself."""
    bits, dtype = np.random.get_bit_generator(), torch.get_default_dtype()
    token = NAME.set(NAME.get())
    try:
        with warnings.catch_warnings():
            yield
    finally:
        NAME.reset(token)
        np.random.set_bit_generator(bits)
        torch.set_default_dtype(dtype)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor) and a.device.type == "cpu":
        return a.dtype == b.dtype and torch.equal(a, b)
    return bool(a == b)


@pytest.mark.parametrize(
    "call",
    [autocast, gradients, inference, draws, another_generator, context, warned, elsewhere],
    ids=lambda call: call.__name__,
)
@pytest.mark.parametrize("mode", [True, False], ids=["inference mode", "none"])
def test_each_call_finds_what_it_has_set(
    call: Callable[[Any, int], list[Any]],
    mode: bool,
    tower: Any,
    streamed: tuple[Any, Stream],
    capsys: pytest.CaptureFixture[str],
) -> None:
    NAME.set("outside")
    with torch.inference_mode(mode), torch.no_grad():
        expected = []
        for n in range(4):
            with set_back():
                expected.append(call(tower, n))
        for order in ([0, 1, 2, 3], [3, 2, 1, 0, 0, 1]):
            before = seen_from_outside()
            results = together(streamed[1], [lambda n=n: call(streamed[0], n) for n in order])
            assert seen_from_outside() == before
            for result, n in zip(results, order, strict=True):
                assert len(result) == len(expected[n])
                assert all(same(a, b) for a, b in zip(result, expected[n], strict=True)), (n, result)


def seen_from_outside() -> list[Any]:
    """All that the calls change."""
    return [
        torch.is_inference_mode_enabled(),
        torch.is_grad_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_autocast_dtype("cpu"),
        torch.get_default_dtype(),
        torch.get_rng_state().tolist(),
        random.getstate(),
        str(np.random.get_state()),
        np.random.get_bit_generator(),
        NAME.get(),
        list(warnings.filters),
        warnings.showwarning,
        sys.stdout,
        torch.ones(1).device,
        torch.backends.cuda.flash_sdp_enabled(),
    ]


def test_a_generator_that_has_a_normal_in_hand_keeps_it(streamed: tuple[Any, Stream]) -> None:
    np.random.seed(3)
    first, second, third = np.random.randn(3)
    np.random.seed(3)
    assert np.random.randn() == first

    def call() -> list[float]:
        streamed[0](numbers(0))
        return [np.random.randn(), np.random.randn()]

    assert together(streamed[1], [call, call]) == [[second, third]] * 2
    assert np.random.randn() == second


def test_a_turn_costs_little() -> None:
    switcher = ContextSwitcher()
    with switcher.active():
        states = [switcher.new_state() for _ in range(2)]
        for n, state in enumerate(states):
            switcher.switch_to(state)
            for seed in (random.seed, np.random.seed, torch.manual_seed):
                seed(n)
            ours = min(_time_of(switcher.switch_to, states) for _ in range(20))
        plain = min(_time_of(lambda _: _all_states(), states) for _ in range(20))
    # a tenth where nothing else runs
    assert ours < plain / 3, f"{ours * 1e6:.0f} us a turn, and {plain * 1e6:.0f} to save and set all states"


def _all_states() -> None:
    """What a turn would do if it took and set the state of each generator anew."""
    random.setstate(random.getstate())
    np.random.set_state(np.random.get_state())
    torch.set_rng_state(torch.get_rng_state())


def _time_of(turn: Callable[[Any], None], states: list[Any], rounds: int = 100) -> float:
    started = time.perf_counter()
    for _ in range(rounds):
        for state in states:
            turn(state)
    return (time.perf_counter() - started) / rounds / len(states)
