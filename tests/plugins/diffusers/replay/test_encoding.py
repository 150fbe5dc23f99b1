"""What encoders return is recorded once and played back, and what cannot be is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from runner_diffusers.replay.encoding import Playback, Recording, ReplayError, digest
from runner_diffusers.replay.views import Arguments

if TYPE_CHECKING:
    from collections.abc import Callable

ONES = torch.ones(2)


class Pipeline:
    """Calls encoders as pipelines do: the call of each method and component goes through ``encoders``."""

    def __init__(self, encoders: Recording | Playback, generator: torch.Generator | None = None) -> None:
        self.encoders = encoders
        self.generator = generator
        self.computed: list[str] = []

    def method(self, name: str, body: Callable[[], Any], *, encodes: bool = True, given: Any = ()) -> Any:
        return self.encoders.method(name, Arguments(self, lambda *_: body(), (given,), {}), encodes=encodes)

    def component(self, name: str, result: Any, given: Any = (), *, encoder: bool = True) -> Any:
        def call(*_: Any) -> Any:
            self.computed.append(name)
            return result() if callable(result) else result

        return self.encoders.component(name, "encode", Arguments(self, call, (given,), {}), encoder=encoder)


def recorded(*calls: Callable[[Pipeline], Any], generator: torch.Generator | None = None) -> Recording:
    recording = Recording(generator or torch.Generator())
    for call in calls:
        call(Pipeline(recording))
    return recording


def playback(recording: Recording, *, compares: bool = True, own: tuple[str, ...] = ()) -> Playback:
    return Playback(
        recording.tensors,
        recording.calls,
        torch.device("cpu"),
        lambda tensor, _: tensor,
        compares=compares,
        own=own,
    )


def test_the_outermost_method_is_recorded_and_not_the_layers_below_it() -> None:
    def prompt(pipeline: Pipeline) -> Any:
        def inner() -> Any:
            return pipeline.method("_encode", lambda: pipeline.component("text_encoder", ONES))

        return pipeline.method("encode_prompt", lambda: (inner() * 2, None))

    recording = recorded(prompt)
    assert list(recording.calls) == ["encode_prompt#0"]
    assert len(recording.tensors) == 1

    later = Pipeline(playback(recording))
    embeddings, absent = prompt(later)
    assert torch.equal(embeddings, ONES * 2)
    assert absent is None
    assert later.computed == []


def test_a_method_that_encodes_by_what_it_is_given_is_recorded_though_no_encoder_ran() -> None:
    recording = recorded(lambda one: one.method("encode_prompt", lambda: ONES))
    assert list(recording.calls) == ["encode_prompt#0"]


def test_a_method_in_which_only_a_vae_encodes_is_called_again_and_its_distribution_played_back() -> None:
    def latents(pipeline: Pipeline) -> Any:
        return pipeline.method(
            "prepare_latents",
            lambda: pipeline.component("vae", ONES, encoder=False) + torch.tensor(1.0),
            encodes=False,
        )

    recording = recorded(latents)
    assert list(recording.calls) == ["vae.encode#0"]
    later = Pipeline(playback(recording))
    assert torch.equal(latents(later), ONES + 1)
    assert later.computed == []


def test_calls_of_one_name_are_reported_apart_by_their_order() -> None:
    def both(pipeline: Pipeline) -> list[Any]:
        return [pipeline.component("image_encoder", value, value) for value in (1, 2)]

    recording = recorded(both)
    assert list(recording.calls) == ["image_encoder.encode#0", "image_encoder.encode#1"]
    assert both(Pipeline(playback(recording))) == [1, 2]


def test_a_component_that_calls_itself_is_recorded_once() -> None:
    def outer(pipeline: Pipeline) -> Any:
        return pipeline.component("text_encoder", lambda: pipeline.component("text_encoder", ONES))

    assert list(recorded(outer).calls) == ["text_encoder.encode#0"]


def test_other_arguments_than_in_the_encode_stage_are_refused() -> None:
    recording = recorded(lambda one: one.component("vae", ONES, torch.zeros(2), encoder=False))
    with pytest.raises(ReplayError, match=r"vae.encode#0 has other arguments .* seed or the steps"):
        Pipeline(playback(recording)).component("vae", ONES, torch.ones(2), encoder=False)
    # in stages of other dtypes they differ in their last bits
    later = Pipeline(playback(recording, compares=False))
    assert torch.equal(later.component("vae", None, torch.ones(2), encoder=False), ONES)


def test_what_was_not_called_is_refused_or_computed_by_a_stages_own_component() -> None:
    recording = recorded(lambda one: one.component("vae", ONES, encoder=False))
    with pytest.raises(ReplayError, match=r"image_encoder.encode#0 was not called in the encode stage"):
        Pipeline(playback(recording)).component("image_encoder", 5)
    own = Pipeline(playback(recording, own=("vae",)))
    assert torch.equal(own.component("vae", 5, encoder=False), ONES)
    assert own.component("vae", 5, encoder=False) == 5


def test_a_method_that_draws_random_numbers_is_called_again_and_its_encoders_played_back() -> None:
    generator = torch.Generator().manual_seed(3)

    def draws(pipeline: Pipeline) -> Any:
        return pipeline.method(
            "encode_image",
            lambda: pipeline.component("image_encoder", ONES) + torch.randn(2, generator=generator),
            given=generator,
        )

    recording = Recording(generator)
    first = draws(Pipeline(recording))
    assert list(recording.calls) == ["image_encoder.encode#0"]
    generator.manual_seed(3)
    assert torch.equal(draws(Pipeline(playback(recording))), first)


def test_what_cannot_be_handed_on_is_refused_by_name() -> None:
    with pytest.raises(ReplayError, match=r"encode_prompt#0 returned .* builtins.object"):
        recorded(lambda one: one.method("encode_prompt", object))


def test_what_is_recorded_and_played_back_is_nobody_elses() -> None:
    mine = torch.ones(2)
    recording = recorded(lambda one: one.component("vae", mine, encoder=False))
    mine.zero_()
    for _ in range(2):
        back = Pipeline(playback(recording)).component("vae", None, encoder=False)
        assert torch.equal(back, torch.ones(2))
        back.zero_()


def of(*args: Any, **kwargs: Any) -> str:
    return digest(Arguments(None, lambda *_: None, args, kwargs))


PICTURE = Image.new("RGB", (2, 2), "red")


@pytest.mark.parametrize(
    ("some", "others"),
    [
        (torch.zeros(2), torch.zeros(3)),
        (torch.zeros(2), torch.zeros(2, dtype=torch.bfloat16)),
        (torch.zeros(2), torch.tensor([0, 1e-7])),
        (np.zeros(2), np.ones(2)),
        (PICTURE, Image.new("RGB", (2, 2), "blue")),
        ("a", "b"),
        (1, 2),
        ({"a": 1}, {"b": 1}),
        ([[1], 2], [[1], 3]),
    ],
)
def test_digests_differ_where_the_call_does(some: Any, others: Any) -> None:
    assert of(some) != of(others)
    assert of(x=some) != of(x=others)
    assert of(some) == of(some)


def test_objects_are_no_part_of_a_digest() -> None:
    assert of(torch.Generator(), 1) == of(torch.Generator(), 1)
    assert of(a=1, b=2) == of(b=2, a=1)
