"""Switches state that torch, numpy and Python keep per thread or process, so that each call has its own."""

from __future__ import annotations

import sys
import warnings
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from runner.accelerator.backends import accelerator_in_use, autocast_kinds
from runner.stream.attributes import Attributes
from runner.stream.generators import Generators

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SETTINGS: list[tuple[Callable[[], Any], Callable[[Any], object]]] = [
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (torch.is_autocast_cache_enabled, torch.set_autocast_cache_enabled),
    (torch.get_default_dtype, torch.set_default_dtype),
]
"""Getter and setter of each setting; values are compared by identity."""
for _kind in autocast_kinds():
    _SETTINGS += [
        (partial(torch.is_autocast_enabled, _kind), partial(torch.set_autocast_enabled, _kind)),
        (partial(torch.get_autocast_dtype, _kind), partial(torch.set_autocast_dtype, _kind)),
    ]
for _kernel in ("flash", "mem_efficient", "math", "cudnn"):  # torch.nn.attention.sdpa_kernel chooses so
    if hasattr(torch.backends.cuda, f"enable_{_kernel}_sdp"):
        _getter: Any = getattr(torch.backends.cuda, f"{_kernel}_sdp_enabled")
        _SETTINGS.append((_getter, getattr(torch.backends.cuda, f"enable_{_kernel}_sdp")))
for _module, _name in (
    (sys, "stdout"),  # contextlib.redirect_stdout
    (sys, "stderr"),
    (warnings, "showwarning"),
    (warnings, "_showwarnmsg_impl"),  # warnings.catch_warnings(record=True)
):
    if hasattr(_module, _name):
        _SETTINGS.append((partial(getattr, _module, _name), partial(setattr, _module, _name)))


class CallState:
    """The state of one call, saved while another call runs."""

    def __init__(self, generators: Generators, filters: Any, attributes: Attributes) -> None:
        self.generators = generators
        self.filters = filters
        self.attributes = attributes
        self._save_settings()

    def copy(self) -> CallState:
        """A copy for another call."""
        copied = CallState(self.generators.copy(), list(self.filters), self.attributes.copy())
        copied.inference, copied.settings, copied.modes = self.inference, self.settings, self.modes
        copied.streams = self.streams
        return copied

    def save(self) -> None:
        self.generators.save()
        self.attributes.save()
        self.filters = warnings.filters
        self._save_settings()

    def _save_settings(self) -> None:
        self.inference = torch.is_inference_mode_enabled()
        self.settings = [get() for get, _ in _SETTINGS]
        accelerator = accelerator_in_use()
        self.streams = accelerator.current_streams() if accelerator else []
        self.modes = _modes()


class ContextSwitcher:
    """Runs calls alternately in this thread, each with its own state, initially the current one."""

    def __init__(self) -> None:
        self._own = self._now = CallState(Generators(), warnings.filters, Attributes())
        self._guard: Any = None

    @contextmanager
    def active(self) -> Iterator[None]:
        """Allow switching; the state at entry is restored at exit."""
        with (
            self._own.attributes.watched(),
            torch.inference_mode(self._own.inference),  # restores the mode even if guards were not nested
        ):
            for (_, set_), value in zip(_SETTINGS, self._own.settings, strict=True):
                set_(value)
            try:
                yield
            finally:
                self.switch_to(self._own)
                self._leave_guard()

    def new_state(self) -> CallState:
        """The initial state of a call."""
        return self._own.copy()

    def switch_to(self, state: CallState) -> None:
        """Save the current call's state and restore another's."""
        before, self._now = self._now, state
        if before is state:
            return
        before.save()
        changed = self._set_inference(state.inference)
        for (_, set_), old, new in zip(_SETTINGS, before.settings, state.settings, strict=True):
            if changed or old is not new:
                set_(new)
        warnings.filters = state.filters
        if before.filters != state.filters:
            with warnings.catch_warnings():  # invalidates Python's cache of the filters
                pass
        if before.modes != state.modes:
            _set_modes(state.modes)
        if before.streams != state.streams:
            _set_streams(before.streams, state.streams)
        state.generators.restore()
        state.attributes.restore()

    def _set_inference(self, value: bool) -> bool:
        """Set inference mode; whether it changed: then other settings changed with it, and must be set."""
        if torch.is_inference_mode_enabled() == value:
            return False
        self._leave_guard()
        if torch.is_inference_mode_enabled() != value:
            self._guard = torch.inference_mode(value)
            self._guard.__enter__()
        return True

    def _leave_guard(self) -> None:
        guard, self._guard = self._guard, None
        if guard is not None:
            guard.__exit__(None, None, None)


def _modes() -> list[Any]:
    """Modes that override torch's functions, such as ``with torch.device(...)``."""
    count = torch._C._len_torch_function_stack()  # noqa: SLF001
    return [torch._C._get_function_stack_at(at) for at in range(count)]  # noqa: SLF001


def _set_modes(modes: list[Any]) -> None:
    while torch._C._len_torch_function_stack():  # noqa: SLF001
        torch._C._pop_torch_function_stack()  # noqa: SLF001
    for mode in modes:
        torch._C._push_on_torch_function_stack(mode)  # noqa: SLF001


def _set_streams(before: list[torch.Stream], streams: list[torch.Stream]) -> None:
    """Make streams their devices' current ones, and the last one's device the current one.

    A device whose stream stays the same is left alone: to select it would make a context there.
    """
    old = {stream.device_index: stream for stream in before}
    for stream in streams:
        if old[stream.device_index] != stream:
            # blocks arrive and leave in the order of the calls, whatever streams these compute in
            stream.wait_stream(old[stream.device_index])
            torch.accelerator.set_stream(stream)  # and its device
    if torch.accelerator.current_device_index() != streams[-1].device_index:
        torch.accelerator.set_stream(streams[-1])
