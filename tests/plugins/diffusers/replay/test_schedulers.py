"""Every scheduler goes on from a saved state; an item's own reports its steps and leaves the others alone."""

from __future__ import annotations

import copy
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from plugins.diffusers.replay.sketch import Sketch
from runner_diffusers.replay.schedulers import (
    attributes,
    changed,
    guider_state,
    own_scheduler,
    restore_guider,
)

FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}
SCHEDULERS: dict[str, dict[str, Any]] = {
    "EulerDiscreteScheduler": {},
    "EulerAncestralDiscreteScheduler": {},
    "HeunDiscreteScheduler": {},
    "KDPM2DiscreteScheduler": {},
    "KDPM2AncestralDiscreteScheduler": {},
    "LMSDiscreteScheduler": {},
    "PNDMScheduler": {},
    "DDIMScheduler": {},
    "DDPMScheduler": {},
    "LCMScheduler": {},
    "TCDScheduler": {},
    "EDMEulerScheduler": {},
    "DPMSolverMultistepScheduler": {},
    "DPMSolverMultistepScheduler Karras": {"use_karras_sigmas": True},
    "DPMSolverMultistepScheduler SDE": {"algorithm_type": "sde-dpmsolver++"},
    "DPMSolverMultistepScheduler 3": {"solver_order": 3},
    "DPMSolverSinglestepScheduler": {},
    "DPMSolverSDEScheduler": {"noise_sampler_seed": 7},
    "UniPCMultistepScheduler": {},
    "DEISMultistepScheduler": {},
    "SASolverScheduler": {},
    "CosineDPMSolverMultistepScheduler": {},
    "UniPCMultistepScheduler flow": FLOW,
    "DPMSolverMultistepScheduler flow": FLOW,
    "FlowMatchEulerDiscreteScheduler": {"shift": 3.0},
    "FlowMatchEulerDiscreteScheduler stochastic": {"stochastic_sampling": True},
    "FlowMatchHeunDiscreteScheduler": {"shift": 3.0},
    "FlowMatchLCMScheduler": {"shift": 3.0},
}


PACKAGES = {
    "LMSDiscreteScheduler": "scipy",
    "DPMSolverSDEScheduler": "torchsde",
    "CosineDPMSolverMultistepScheduler": "torchsde",
}
"""What schedulers need that the plugin does not."""


def scheduler(name: str) -> Any:
    return getattr(diffusers, name.partition(" ")[0])(**SCHEDULERS[name])


@pytest.mark.parametrize("name", SCHEDULERS)
def test_it_goes_on_from_each_border_to_the_same_end(name: str) -> None:
    if name in PACKAGES:
        pytest.importorskip(PACKAGES[name])
    whole = Sketch(scheduler=scheduler(name))
    expected = whole.run()
    assert expected.isfinite().all()
    assert len(whole.states) >= 5
    for state in whole.states:
        resumed = Sketch(state, scheduler=scheduler(name))
        assert torch.equal(resumed.run(), expected), state.steps
        assert resumed.computed == whole.computed - state.steps + (state is whole.states[0])


def test_an_items_scheduler_is_a_new_one_of_the_same_class_and_config() -> None:
    steps: list[Any] = []

    def on_call(own: Any, method: str, call: Any) -> Any:
        steps.extend([own] if method == "step" else [])
        return call()

    loaded = diffusers.EulerDiscreteScheduler(beta_start=0.002)
    own, other = own_scheduler(loaded, on_call), own_scheduler(loaded, on_call)
    own.set_timesteps(3)
    assert isinstance(own, diffusers.EulerDiscreteScheduler)
    assert own.config.beta_start == 0.002
    assert other.num_inference_steps is loaded.num_inference_steps is None
    own.step(torch.zeros(1, 4), own.timesteps[0], torch.ones(1, 4))
    assert steps == [own]
    assert own != other  # though their configs are equal


def test_a_copy_of_a_scheduler_reports_its_steps_as_another() -> None:
    steps: list[Any] = []

    def on_call(own: Any, method: str, call: Any) -> Any:
        steps.extend([own] if method == "step" else [])
        return call()

    own = own_scheduler(diffusers.EulerDiscreteScheduler(), on_call)
    own.set_timesteps(3)
    for one in (own, copied := copy.deepcopy(own)):
        one.step(torch.zeros(1, 4), one.timesteps[0], torch.ones(1, 4))
    assert [one is own for one in steps] == [True, False]
    assert steps[1] is copied


def test_what_changed_since_the_first_step_is_the_state() -> None:
    own = own_scheduler(diffusers.UniPCMultistepScheduler(), lambda _own, _name, call: call())
    own.set_timesteps(3)
    before = attributes(own)
    assert changed(own, before) == {}
    own.step(torch.zeros(1, 4), own.timesteps[0], torch.ones(1, 4))
    names = {"_step_index", "lower_order_nums", "model_outputs", "last_sample", "this_order", "timestep_list"}
    assert changed(own, before).keys() == names
    own.numbers = np.zeros(2)
    before = attributes(own)
    own.numbers[0] = 1
    assert changed(own, before).keys() == {"numbers"}


class Momentum:
    def __init__(self) -> None:
        self.average = torch.ones(2)


class Guider:
    def __init__(self) -> None:
        self.momentum = Momentum()
        self.steps = 3
        self.unknown = object()
        self._internal_dict = {"a": 1}


def test_the_state_of_a_guider_and_of_its_parts_is_restored() -> None:
    guider, fresh = Guider(), Guider()
    state = guider_state(guider)
    assert state.keys() == {"momentum.average", "steps"}
    guider.momentum.average += 1
    restore_guider(fresh, guider_state(guider))
    assert torch.equal(fresh.momentum.average, torch.full((2,), 2.0))
    assert torch.equal(state["momentum.average"], torch.ones(2))  # a copy
