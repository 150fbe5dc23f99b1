"""Which files a component is loaded from, where its folder has more than one could be."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from runner.api import Component
from runner.errors import ModelError
from runner.files.header import Header, TensorInfo
from runner.model.selection import select

if TYPE_CHECKING:
    from collections.abc import Mapping

DIFFUSERS, TRANSFORMERS, OTHER = (
    "diffusers:AutoencoderKL",
    "transformers.models.t5:T5EncoderModel",
    "mine:Net",
)
UNET, MODEL = "diffusion_pytorch_model", "model"
INDEX = ".safetensors.index.json"
ONE, TWO = "-00001-of-00002", "-00002-of-00002"


@dataclass
class Folder:
    """Contents of a folder that is not on any disk: JSON files, and the tensors of weight files."""

    tables: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    title: str = "the folder"

    def table(self, name: str) -> Mapping[str, Any]:
        table: Mapping[str, Any] = self.tables.get(name, {})
        return table

    def header(self, name: str) -> Header:
        held = self.tensors.get(name, (name,))
        return Header({tensor: TensorInfo("U8", (), 0, 1) for tensor in held}, {}, 1)


def shards(stem: str, index: str = "") -> Folder:
    names = [f"{stem}{part}.safetensors" for part in (ONE, TWO)]
    return Folder({index or f"{stem}{INDEX}": {"weight_map": dict(zip("ab", names, strict=True))}})


def chosen(
    names: list[str], cls: str, folder: Folder | None = None, variant: str | None = None
) -> tuple[list[str], str | None]:
    """The names without their folder, and the variant."""
    every = [
        "config.json",
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
        "deeper/model.safetensors",
        *names,
    ]
    paths = [f"t/{name}" for name in every] + ["u/model.safetensors", "model.safetensors"]
    found = select(paths, Component("t", cls), folder or Folder(), variant)
    assert "t/config.json" in found.names
    return [name.removeprefix("t/") for name in found.names if name != "t/config.json"], found.variant


SHARDS = [f"{UNET}{ONE}.safetensors", f"{UNET}{TWO}.safetensors"]
HALVES = [f"{UNET}.fp16{ONE}.safetensors", f"{UNET}.fp16{TWO}.safetensors"]
OLDER = [f"{UNET}{ONE}.fp16.safetensors", f"{UNET}{TWO}.fp16.safetensors"]
T5 = [f"{MODEL}{ONE}.safetensors", f"{MODEL}{TWO}.safetensors"]


@pytest.mark.parametrize(
    ("names", "cls", "folder", "expected"),
    [
        ([f"{UNET}.safetensors", "flux1-dev.safetensors"], DIFFUSERS, None, [f"{UNET}.safetensors"]),
        ([f"{MODEL}.safetensors", "t5xxl.safetensors"], TRANSFORMERS, None, [f"{MODEL}.safetensors"]),
        ([f"{UNET}.safetensors", f"{UNET}.fp16.safetensors"], DIFFUSERS, None, [f"{UNET}.safetensors"]),
        # some text encoders are transformers' models and live in diffusers
        ([f"{MODEL}.safetensors"], DIFFUSERS, None, [f"{MODEL}.safetensors"]),
        (
            [*SHARDS, f"{UNET}{INDEX}", f"{UNET}.safetensors"],
            DIFFUSERS,
            shards(UNET),
            [*SHARDS, f"{UNET}{INDEX}"],
        ),
        (
            [*T5, f"{MODEL}{INDEX}", f"{MODEL}.safetensors"],
            TRANSFORMERS,
            shards(MODEL),
            [*T5, f"{MODEL}{INDEX}"],
        ),
        # shards of an earlier save, which the index does not name
        (
            [*T5, f"{MODEL}{INDEX}", "model-00001-of-00003.safetensors"],
            TRANSFORMERS,
            shards(MODEL),
            [*T5, f"{MODEL}{INDEX}"],
        ),
        (
            ["consolidated.safetensors"],
            TRANSFORMERS,
            Folder({"config.json": {"transformers_weights": "consolidated.safetensors"}}),
            ["consolidated.safetensors"],
        ),
        # a class of no known library names its files as it likes
        (["b.safetensors", "a.safetensors"], OTHER, None, ["a.safetensors", "b.safetensors"]),
        ([*T5, f"{MODEL}{INDEX}", "b.safetensors"], OTHER, shards(MODEL), [*T5, f"{MODEL}{INDEX}"]),
        (
            ["b.safetensors", "model.safetensors"],
            OTHER,
            Folder(tensors={"b.safetensors": ("w",), "model.safetensors": ("v", "w")}),
            ["model.safetensors"],
        ),
        (["vocab.txt", "spiece.model", "tokenizer.json"], TRANSFORMERS, "tokenizer", []),
    ],
)
def test_one_layout_of_the_weights_is_chosen(
    names: list[str], cls: str, folder: Any, expected: list[str]
) -> None:
    if folder == "tokenizer":
        found = select([f"t/{name}" for name in names], Component("t", cls), Folder())
        assert found.names == tuple(sorted(f"t/{name}" for name in names))
    else:
        assert chosen(names, cls, folder) == (sorted(expected), None)


@pytest.mark.parametrize(
    ("names", "cls", "folder", "expected"),
    [
        ([f"{UNET}.safetensors", f"{UNET}.fp16.safetensors"], DIFFUSERS, None, [f"{UNET}.fp16.safetensors"]),
        (
            [*SHARDS, f"{UNET}{INDEX}", f"{UNET}.fp16.safetensors"],
            DIFFUSERS,
            shards(UNET),
            [f"{UNET}.fp16.safetensors"],
        ),
        (
            [*HALVES, f"{UNET}.safetensors.index.fp16.json", f"{UNET}.safetensors"],
            DIFFUSERS,
            shards(f"{UNET}.fp16", f"{UNET}.safetensors.index.fp16.json"),
            [*HALVES, f"{UNET}.safetensors.index.fp16.json"],
        ),
        (
            [*OLDER, f"{UNET}.safetensors.fp16.index.json"],
            DIFFUSERS,
            Folder(
                {f"{UNET}.safetensors.fp16.index.json": {"weight_map": dict(zip("ab", OLDER, strict=True))}}
            ),
            [*OLDER, f"{UNET}.safetensors.fp16.index.json"],
        ),
        (["net.fp16.safetensors", "net.safetensors"], OTHER, None, ["net.fp16.safetensors"]),
    ],
)
def test_a_variant_is_chosen_in_every_spelling(
    names: list[str], cls: str, folder: Folder | None, expected: list[str]
) -> None:
    assert chosen(names, cls, folder, "fp16") == (sorted(expected), "fp16")


def test_a_folder_without_the_variant_has_its_plain_files_loaded() -> None:
    assert chosen([f"{UNET}.safetensors", f"{UNET}.ema.safetensors"], DIFFUSERS, None, "fp16") == (
        [f"{UNET}.safetensors"],
        None,
    )


@pytest.mark.parametrize(
    ("names", "cls", "folder", "words"),
    [
        (
            [f"{UNET}.fp16.safetensors"],
            DIFFUSERS,
            None,
            "weights only as variant 'fp16': write `variant = \"fp16\"`",
        ),
        (["net.bf16.safetensors", "net.ema.safetensors"], OTHER, None, "variant 'bf16' and 'ema'"),
        (["flux1-dev.safetensors"], DIFFUSERS, None, "loads diffusion_pytorch_model.safetensors"),
        (T5, TRANSFORMERS, None, "the shards that model.safetensors.index.json names"),
        ([T5[0], f"{MODEL}{INDEX}"], TRANSFORMERS, shards(MODEL), f"names {T5[1]}, which is not there"),
        (
            [f"{MODEL}{INDEX}"],
            TRANSFORMERS,
            Folder({f"{MODEL}{INDEX}": {"weight_map": {"a": "../x.safetensors"}}}),
            "names ../x.safetensors, which is not there",
        ),
        (
            [f"{MODEL}{INDEX}"],
            TRANSFORMERS,
            Folder({f"{MODEL}{INDEX}": {"weight_map": {"a": 1}}}),
            "has no weight_map",
        ),
        (
            ["a.safetensors", "b.safetensors"],
            OTHER,
            Folder(tensors={"a.safetensors": ("w",), "b.safetensors": ("w",)}),
            "has 'w' both in a.safetensors and in b",
        ),
        ([f"{MODEL}{INDEX}", f"{UNET}{INDEX}"], OTHER, None, "has two indexes"),
        ([], DIFFUSERS, None, "holds pickled weights only (pytorch_model.bin)"),
    ],
)
def test_what_cannot_be_chosen_is_refused_with_what_to_do(
    names: list[str], cls: str, folder: Folder | None, words: str
) -> None:
    with pytest.raises(ModelError) as refused:
        chosen(names, cls, folder)
    assert words in str(refused.value)


def test_only_the_config_of_a_component_that_needs_no_more() -> None:
    names = ["t/config.json", "t/model.safetensors", "t/tokenizer.json"]
    assert select(names, Component("t", "x:Y", config_only=True), Folder()).names == ("t/config.json",)
    assert select(["u/model.safetensors"], Component("x", "x:Y", folder="u"), Folder()).names == (
        "u/model.safetensors",
    )
