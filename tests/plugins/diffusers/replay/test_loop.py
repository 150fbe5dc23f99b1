"""The loop runs through earlier steps without the denoiser, and ends as if it had never stopped."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from plugins.diffusers.replay.sketch import CPU, STEPS, Sketch, through_a_file
from runner_diffusers.replay.encoding import ReplayError
from runner_diffusers.replay.loop import Loop, LoopState
from runner_diffusers.replay.views import Arguments

NEVER = Arguments(None, lambda _: pytest.fail("the denoiser is called"), (), {})


@pytest.mark.parametrize("schedulers", [1, 2])
def test_it_goes_on_from_each_border_to_the_same_end(schedulers: int) -> None:
    whole = Sketch(schedulers=schedulers)
    expected = whole.run()
    assert len(whole.states) == STEPS - 1
    for done, state in enumerate(whole.states, 1):
        assert state.steps == done * schedulers
        resumed = Sketch(state, schedulers)
        assert torch.equal(resumed.run(), expected), done
        # after one step, a denoiser of the loop cannot be distinguished from one that runs before it, and is called again
        assert resumed.computed == STEPS - done + (done == 1)
        assert [one.steps for one in resumed.states] == [n * schedulers for n in range(done + 1, STEPS)]


def test_a_finished_loop_is_run_through_without_the_denoiser() -> None:
    whole = Sketch()
    expected = whole.run()
    ended = Sketch(through_a_file(whole.loop.state()))
    assert torch.equal(ended.run(), expected)  # with what is drawn after the loop, as from the whole
    assert ended.computed == 0
    assert ended.loop.iterations == ended.loop.length == STEPS


def test_a_resumed_state_of_a_resumed_loop_is_that_of_the_whole() -> None:
    whole = Sketch()
    whole.run()
    twice = Sketch(through_a_file(whole.states[1]))
    twice.run()
    for resumed, first in zip(twice.states, whole.states[2:], strict=True):
        assert resumed.values == first.values
        assert resumed.tensors.keys() == first.tensors.keys()
        assert all(torch.equal(resumed.tensors[name], first.tensors[name]) for name in first.tensors)


def test_zeros_have_the_shapes_of_what_the_denoiser_returned() -> None:
    whole = Sketch()
    whole.run()
    loop = Loop(torch.Generator(), [], CPU, whole.states[2])
    first, (second,) = loop.denoise("unet", NEVER)
    assert torch.equal(first, torch.zeros(1, 4, 4))
    assert torch.equal(second, torch.zeros(()))


def test_more_calls_of_the_denoiser_than_before_are_refused() -> None:
    whole = Sketch()
    whole.run()
    loop = Loop(torch.Generator(), [], CPU, whole.states[1])
    for _ in range(2):
        loop.denoise("unet", NEVER)
    with pytest.raises(ReplayError, match="called more often than when these steps were done"):
        loop.denoise("unet", NEVER)


def test_tensors_on_the_host_stay_there() -> None:
    meta = torch.device("meta")
    state = LoopState()
    packed = [state.put("scheduler", torch.zeros(1), device) for device in (meta, CPU)]
    assert [name.endswith("@host") for name in state.tensors] == [True, False]
    assert [state.get(one, meta).device.type for one in packed] == ["cpu", "meta"]


def test_schedulers_that_do_not_step_in_turn_are_each_as_they_were_at_their_own_last_step() -> None:
    """As those of the frames of a clip that is denoised frame after frame."""
    order = [0, 0, 1, 0, 1, 1]
    whole = Loop(torch.Generator(), [], CPU)
    schedulers = [Stepped(), Stepped()]
    for n, which in enumerate(order[:5]):
        whole.step(schedulers[which], partial(torch.full, (1,), float(n)))
    state = through_a_file(whole.state())
    assert state.values["last"] == [4, 5]

    resumed = Loop(torch.Generator(), [], CPU, state)
    again = [Stepped(), Stepped()]
    for which in order[:5]:
        resumed.step(again[which], lambda: pytest.fail("it was done before"))
    resumed.step(again[1], lambda: (torch.tensor(5.0),))

    ended = resumed.state()
    assert ended.values["last"] == [4, 6]
    assert [float(ended.get(one, CPU)[0]) for one in ended.values["results"]] == [3.0, 5.0]


class Stepped:
    """A scheduler without attributes that change."""
