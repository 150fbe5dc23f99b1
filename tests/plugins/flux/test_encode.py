"""Which prompt goes to which encoder: CLIP sees the first, T5 the second where there is one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from flux_stages import CONFIGS, Context, started
from runner_flux import encode
from runner_flux.params import Encode

PROMPT, OTHER = "a red circle", "a blue square"
T5, CLIP = "prompt_embeds", "pooled_prompt_embeds"


@pytest.fixture(scope="module")
def encoders() -> Any:
    """Real small encoders; what they make of each prompt is distinguished by its numbers."""
    torch.manual_seed(0)
    context = Context(CONFIGS["demo"], "float32")
    with torch.inference_mode():
        _, one, item = started(encode, None, context, {})

        def encoded(**params: Any) -> dict[str, torch.Tensor]:
            item.params = Encode(max_sequence_length=16, **params)
            return dict(one(item))

        yield encoded


def changed(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> set[str]:
    assert set(a) == set(b)
    return {name for name in a if not torch.equal(a[name], b[name])}


def test_each_parameter_reaches_its_encoder(encoders: Any) -> None:
    base = encoders(prompt=PROMPT, negative_prompt=PROMPT)
    assert changed(base, encoders(prompt=OTHER, negative_prompt=PROMPT)) == {T5, CLIP}
    assert changed(base, encoders(prompt=PROMPT, prompt_2=OTHER, negative_prompt=PROMPT)) == {T5}
    assert changed(base, encoders(prompt=PROMPT, negative_prompt=OTHER)) == {
        f"negative_{T5}",
        f"negative_{CLIP}",
    }
    assert changed(base, encoders(prompt=PROMPT, negative_prompt=PROMPT, negative_prompt_2=OTHER)) == {
        f"negative_{T5}"
    }


def test_a_negative_prompt_is_encoded_as_a_prompt_is(encoders: Any) -> None:
    made = encoders(prompt=PROMPT, prompt_2=OTHER, negative_prompt=PROMPT, negative_prompt_2=OTHER)
    for name in (T5, CLIP):
        assert torch.equal(made[name], made[f"negative_{name}"])


def test_without_a_negative_prompt_there_are_no_outputs_for_it(encoders: Any) -> None:
    assert set(encoders(prompt=PROMPT)) == {T5, CLIP}
    assert set(encoders(prompt=PROMPT, negative_prompt="")) == {
        T5,
        CLIP,
        f"negative_{T5}",
        f"negative_{CLIP}",
    }


def test_embeddings_are_of_one_item_and_as_long_as_they_may_be(encoders: Any) -> None:
    made = encoders(prompt=PROMPT)
    assert made[T5].shape == (16, CONFIGS["demo"]["text_encoder_2"]["d_model"])
    assert made[CLIP].shape == (CONFIGS["demo"]["text_encoder"]["hidden_size"],)
