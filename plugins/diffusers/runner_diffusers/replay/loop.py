"""The denoising loop: its state at the border of an iteration, and running through it again up to there."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from runner_diffusers.replay.carried import CarriedState, locals_of_call
from runner_diffusers.replay.encoding import ReplayError
from runner_diffusers.replay.schedulers import attributes, changed, guider_state, restore_guider
from runner_diffusers.replay.values import described, pack, unpack, zeros

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from runner_diffusers.replay.views import Arguments

RANDOM = ("generator", "global", "device")
"""Names of the states of the item's generator and of torch's own."""
HOST = "@host"
"""Ends the names of tensors that a scheduler keeps on the CPU, whatever the device."""


@dataclass
class LoopState:
    """The loop after some steps, as tensors and JSON: a checkpoint, or what the decode stage begins with."""

    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """Steps of schedulers that were done."""
        return int(self.values["steps"])

    def put(self, name: str, value: Any, device: torch.device) -> Any:
        """JSON of a value whose tensors are kept; those that are not on ``device`` are marked."""

        def keep(tensor: torch.Tensor) -> str:
            key = f"{name}.{len(self.tensors)}{'' if tensor.device.type == device.type else HOST}"
            self.tensors[key] = tensor.detach().to("cpu", copy=True)
            return key

        return pack(value, keep)

    def get(self, packed: Any, device: torch.device) -> Any:
        """The value, with its tensors on ``device``, but those that were on the host."""

        def kept(name: str) -> torch.Tensor:
            tensor = self.tensors[name].clone()
            return tensor if name.endswith(HOST) else tensor.to(device)

        return unpack(packed, kept, device)


@dataclass
class _Latest:
    """What one scheduler returned at its last step, how it was then, and the number of that step."""

    result: Any
    state: Mapping[str, Any]
    step: int = 0


@dataclass(frozen=True)
class _Call:
    """A call of a denoiser in the loop."""

    template: int
    """Index of the description of what it returned, in the loop's list of them."""
    component: str
    steps: int
    """Steps of schedulers that were done before the call."""


def _called_before_the_loop(calls: Sequence[_Call]) -> set[str]:
    """The denoisers that are called before the first step of a scheduler alone, such as a T2I adapter."""
    return {one.component for one in calls} - {one.component for one in calls if one.steps}


class Loop:
    """Runs the denoiser, or returns zeros for it where ``done`` says that the steps were done before."""

    def __init__(
        self,
        generator: torch.Generator,
        guiders: Sequence[Any],
        device: torch.device,
        done: LoopState | None = None,
        on_border: Callable[[], None] = lambda: None,
        *,
        has_denoisers: bool = True,
    ) -> None:
        """``on_border`` is called when an iteration of the loop has ended and the next begins.

        Where the stage ``has_denoisers``, those that are called before the loop alone are called again.
        """
        self._generator = generator
        self._guiders = guiders
        self._device = device
        self._done = done
        self._on_border = on_border
        self._templates: list[Any] = []
        self._calls: list[_Call] = []
        self._ends: dict[int, Any] = {}
        """What the last steps of earlier loops returned, by their numbers."""
        if done is not None:
            self._templates = list(done.values["templates"])
            self._calls = [_Call(*one) for one in done.values["calls"]]
            self._ends = {int(at): done.get(one, device) for at, one in done.values["ends"].items()}
        self._again = _called_before_the_loop(self._calls) if has_denoisers else set()
        self._carried = CarriedState()
        self._called = 0
        self._reported = self._steps_before
        self.steps = 0
        self._schedulers: list[Any] = []
        self._first: list[dict[str, Any]] = []
        """Of each scheduler: its attributes before its first step."""
        self._latest: list[_Latest] = []
        self._random: dict[str, torch.Tensor] = {}
        self._guided: list[dict[str, Any]] = []

    @property
    def iterations(self) -> int:
        """Iterations of the loop that were done, as if every scheduler stepped once in each."""
        return self.steps // max(1, len(self._schedulers))

    @property
    def length(self) -> int:
        """Iterations in all, as far as is known: the timesteps that the scheduler was set to."""
        return max((len(one.timesteps) for one in self._schedulers), default=self.iterations)

    @property
    def _steps_before(self) -> int:
        return self._done.steps if self._done is not None else 0

    @property
    def can_be_continued(self) -> bool:
        """Whether its state is all that the loop goes on from: nothing else is kept between steps."""
        return not self._carried.found

    def denoise(self, component: str, call: Arguments) -> Any:
        """What the denoiser returns; zeros of the same shapes while earlier steps are run through again."""
        self._called += 1
        if self.steps < self._steps_before:
            if self._called > len(self._calls):
                raise ReplayError("the denoiser is called more often than when these steps were done")
            if component not in self._again:
                return self._done_zeros(self._templates[self._calls[self._called - 1].template])
        is_border = self.steps > self._reported
        if is_border:
            self._carried.next_iteration()
        if is_border or self._called == 1:
            self._carried.local(locals_of_call())
        self._carried.given([*call.args, call.kwargs])
        if is_border:
            self._reported = self.steps
            self._on_border()
        returned = call()
        self._carried.returned(returned)
        if self.steps >= self._steps_before:
            self._log(component, returned)
        return returned

    def _log(self, component: str, returned: Any) -> None:
        template = pack(returned, described, lambda value: {"unknown": type(value).__name__})
        if template not in self._templates:
            self._templates.append(template)
        del self._calls[self._called - 1 :]
        self._calls.append(_Call(self._templates.index(template), component, self.steps))

    def begin(self, scheduler: Any) -> None:
        """Note that a scheduler gets new timesteps: what it did is done, as when a clip is made in parts."""
        if self.steps > self._steps_before and any(known is scheduler for known in self._schedulers):
            self._ends[self.steps] = self._latest[self._index(scheduler)].result

    def step(self, scheduler: Any, call: Callable[[], Any]) -> Any:
        """What a scheduler's step returns; the last state for one that was done before."""
        at = self._index(scheduler)
        self.steps += 1
        if self._done is not None and self.steps <= self._steps_before:
            return self._replayed(self._done, scheduler, at)
        returned = call()
        self._latest[at] = _Latest(returned, changed(scheduler, self._first[at]), self.steps)
        self._random = {"generator": self._generator.get_state(), **global_random(self._device)}
        self._guided = [guider_state(guider) for guider in self._guiders]
        return returned

    def _index(self, scheduler: Any) -> int:
        for at, known in enumerate(self._schedulers):
            if known is scheduler:
                return at
        self._schedulers.append(scheduler)
        self._first.append(attributes(scheduler))
        self._latest.append(_Latest(None, {}))
        return len(self._schedulers) - 1

    def _replayed(self, done: LoopState, scheduler: Any, at: int) -> Any:
        values = done.values
        if self.steps in self._ends:
            return self._ends[self.steps]
        result = done.get(values["results"][at], self._device)
        if self.steps == values["last"][at]:
            state = {name: done.get(one, self._device) for name, one in values["schedulers"][at].items()}
            vars(scheduler).update(state)
            self._latest[at] = _Latest(result, state, self.steps)
        if self.steps == done.steps:
            self._random = {name: done.tensors[name] for name in RANDOM if name in done.tensors}
            self._generator.set_state(self._random["generator"].clone())
            restore_global_random(self._random, self._device)
            self._guided = [
                {path: done.get(one, self._device) for path, one in saved.items()}
                for saved in values["guiders"]
            ]
            for guider, saved in zip(self._guiders, self._guided, strict=True):
                restore_guider(guider, copy.deepcopy(saved))
        return result

    def state(self) -> LoopState:
        """The state after the last step. Taken between iterations: two schedulers may step in one."""
        state = LoopState()
        state.values = {
            "steps": self.steps,
            "templates": self._templates,
            "calls": [[one.template, one.component, one.steps] for one in self._calls],
            "last": [one.step for one in self._latest],
            "results": [state.put("result", one.result, self._device) for one in self._latest],
            "ends": {str(at): state.put("end", one, self._device) for at, one in self._ends.items()},
            "schedulers": [
                {name: state.put("scheduler", value, self._device) for name, value in one.state.items()}
                for one in self._latest
            ],
            "guiders": [
                {path: state.put("guider", value, self._device) for path, value in saved.items()}
                for saved in self._guided
            ],
        }
        state.tensors |= self._random
        return state

    def _done_zeros(self, template: Any) -> Any:
        return unpack(template, lambda description: zeros(description, self._device), self._device)


def global_random(device: torch.device) -> dict[str, torch.Tensor]:
    """The states of torch's own generators, which some pipelines draw from."""
    states = {"global": torch.get_rng_state()}
    if device.type != "cpu":
        states["device"] = torch.get_device_module(device).get_rng_state(device)
    return states


def restore_global_random(states: Mapping[str, torch.Tensor], device: torch.device) -> None:
    torch.set_rng_state(states["global"].clone())
    if device.type != "cpu" and "device" in states:
        torch.get_device_module(device).set_rng_state(states["device"].clone(), device)
