"""Components whose files do not fit their classes, and those that do though names or numbers differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from checkpoints import DEMO
from faults import added, config, demo, in_fp8, remove, renamed, scaled, weights, write
from safetensors.torch import save_file
from transformers import (
    ByT5Tokenizer,
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    T5Config,
    T5ForConditionalGeneration,
)

from runner.api import Component
from runner.model.checks.request import ComponentCheck, checks_of
from runner.model.files import open_component
from runner.worker.check import problem_of

if TYPE_CHECKING:
    from pathlib import Path

    from faults import Fault

STAGES = {
    "encode": (
        Component("text_encoder", "transformers:CLIPTextModel"),
        Component("text_encoder_2", "transformers:T5EncoderModel"),
        Component("tokenizer", "transformers:CLIPTokenizer"),
        Component("tokenizer_2", "transformers:T5TokenizerFast"),
    ),
    "diffuse": (Component("transformer", "diffusers:FluxTransformer2DModel"),),
    "decode": (Component("vae", "diffusers:AutoencoderKL"),),
}
SPIECE, VOCAB, MERGES = "tokenizer_2/spiece.model", "tokenizer/vocab.json", "tokenizer/merges.txt"

REFUSED: dict[str, tuple[Fault, str, str]] = {
    "scales": (weights("transformer", scaled), "diffuse", "fp8 with scales is read from single files"),
    "a scale of T5": (added("text_encoder_2", "encoder.block.0.layer.0.SelfAttention.q.weight_scale"), "encode", "q.weight_scale"),
    "a block less": (config("transformer/config.json", num_single_layers=3), "diffuse", "hold 14 weights that FluxTransformer2DModel does not take (single_transformer_blocks.3."),
    "a block more": (config("transformer/config.json", num_layers=3), "diffuse", "lack 32 weights of FluxTransformer2DModel (transformer_blocks.2."),
    "a layer of CLIP less": (config("text_encoder/config.json", num_hidden_layers=1), "encode", "hold 16 weights that CLIPTextModel does not take"),
    "a layer of T5 less": (config("text_encoder_2/config.json", num_layers=2), "encode", "hold 9 weights that T5EncoderModel does not take (encoder.block.2."),
    "other widths": (config("vae/config.json", latent_channels=8), "decode", "of another shape (decoder.conv_in.weight (64 x 16 x 3 x 3 in the files, 64 x 8 x 3 x 3 in the class)"),
    "a wider CLIP": (config("text_encoder/config.json", intermediate_size=512), "encode", "of another shape (encoder.layers.0.mlp.fc1.bias"),
    "an adapter": (added("transformer", "transformer_blocks.0.attn.to_q.lora_A.weight"), "diffuse", "an adapter (LoRA)"),
    "a leftover of training": (added("vae", "loss.logvar"), "decode", "hold a weight that AutoencoderKL does not take (loss.logvar)"),
    "compiled": (renamed("transformer", "", "_orig_mod."), "diffuse", "save them anew without '_orig_mod.'"),
    "original names": (renamed("transformer", "transformer_blocks", "double_blocks"), "diffuse", "original authors"),
    "no vocabulary": (remove(VOCAB, MERGES), "encode", "tokenizer has no vocabulary"),
    "no vocabulary of T5": (remove(SPIECE, "tokenizer_2/tokenizer.json"), "encode", "tokenizer_2 has no vocabulary, only 4 tokens"),
    "no merges": (remove(MERGES), "encode", "its class reads merges.txt, tokenizer.json, vocab.json"),
    "empty merges": (write(MERGES, "#version: 0.2\n"), "encode", "has no merges for 189 of its 189 words"),
    "an empty table": (write("tokenizer_2/tokenizer.json", "{}"), "encode", "'tokenizer_2' cannot be loaded from"),
    "of a larger encoder": (config("text_encoder_2/config.json", vocab_size=32128), "encode", "has 123 tokens, and its encoder takes 32128"),
    "of a smaller encoder": (config("text_encoder/config.json", vocab_size=600), "encode", "has 703 tokens, and its encoder takes 600"),
}  # fmt: skip
ACCEPTED: dict[str, Fault] = {
    "as it is": lambda _: None,
    "plain fp8": weights("transformer", in_fp8),
    "positions that were saved": weights(
        "text_encoder", lambda found: {**found, "embeddings.position_ids": torch.arange(77)[None]}
    ),
    "CLIP without the old prefix": renamed("text_encoder", "text_model.", ""),
    "T5 from sentencepiece": remove("tokenizer_2/tokenizer.json"),
    "T5 from tokenizers": remove(SPIECE),
    "embeddings padded to a round number": config("text_encoder_2/config.json", vocab_size=123),
}


def problems(model: Path, stage: str) -> list[str]:
    shapes = [open_component(model, component).shapes for component in STAGES[stage]]
    return [
        problem or ""
        for check in checks_of(shapes, {s.component.name: (str(model), model) for s in shapes})
        if (problem := answer(check)) != ""
    ]


def answer(check: ComponentCheck) -> str | None:
    problem = problem_of(check)
    assert problem is not None, check
    return problem


@pytest.mark.parametrize("case", REFUSED)
def test_files_that_do_not_fit_their_class(tmp_path: Path, case: str) -> None:
    fault, stage, words = REFUSED[case]
    found = problems(demo(tmp_path / "model", fault), stage)
    assert any(words in problem for problem in found), found
    assert all(str(tmp_path / "model") in problem for problem in found)  # not the files that stood in


@pytest.mark.parametrize("case", ACCEPTED)
def test_files_that_fit(tmp_path: Path, case: str) -> None:
    model = demo(tmp_path / "model", ACCEPTED[case])
    assert [problem for stage in STAGES for problem in problems(model, stage)] == []


def test_a_text_encoder_from_the_files_of_the_whole_model(tmp_path: Path) -> None:
    text = CLIPTextConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2)
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, image_size=32
    )
    whole = CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=16)
    CLIPModel(whole).save_pretrained(tmp_path / "clip")
    t5 = T5Config(d_model=32, d_ff=64, d_kv=16, num_heads=2, num_layers=1, tie_word_embeddings=False)
    T5ForConditionalGeneration(t5).save_pretrained(tmp_path / "t5")

    for name, cls in (("clip", "CLIPTextModel"), ("clip", "CLIPVisionModel"), ("t5", "T5EncoderModel")):
        assert of(tmp_path, Component(name, f"transformers:{cls}")) == ""
    added("clip", "logit_bias")(tmp_path)
    problem = of(tmp_path, Component("clip", "transformers:CLIPTextModel"))
    assert "hold a weight that CLIPTextModel does not take (logit_bias)" in problem


def test_a_tokenizer_of_bytes_needs_no_file(tmp_path: Path) -> None:
    ByT5Tokenizer().save_pretrained(tmp_path / "tokenizer")
    assert of(tmp_path, Component("tokenizer", "transformers:ByT5Tokenizer")) == ""


def of(model: Path, component: Component) -> str:
    (check,) = checks_of([open_component(model, component).shapes], {component.name: (str(model), model)})
    return answer(check) or ""


class Net(torch.nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.line = torch.nn.Linear(width, width)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ({}, ""),
        (
            {"line.weight": (3, 2)},
            "hold a weight of another shape (line.weight (3 x 2 in the files, 2 x 2 in",
        ),
        ({"line.weight_scale": (1,)}, "hold a weight that Net does not take (line.weight_scale)"),
    ],
)
def test_a_class_of_a_plugins_own(tmp_path: Path, names: dict[str, Any], words: str) -> None:
    (tmp_path / "net").mkdir()
    shapes = {"line.weight": (2, 2), "line.bias": (2,), **names}
    save_file({name: torch.ones(shape) for name, shape in shapes.items()}, tmp_path / "net/model.safetensors")
    (tmp_path / "net/config.json").write_text('{"width": 2}')
    problem = of(tmp_path, Component("net", f"{__name__}:Net"))
    assert words in problem
    assert bool(words) == bool(problem)


def test_what_agrees_is_remembered_by_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNNER_CACHE", str(tmp_path / "cache"))

    def check(model: Path) -> ComponentCheck:
        vae = STAGES["decode"][0]
        (found,) = checks_of([open_component(model, vae).shapes], {vae.name: ("shown", model)})
        return found

    check(DEMO).keep()
    model = demo(tmp_path / "model")
    assert check(model).is_known_to_agree
    config("vae/config.json", latent_channels=8)(model)
    assert not check(model).is_known_to_agree
