"""Compares the tensors of a single file, as diffusers converts them, with the weights of a class.

Tensors are on the device "meta": what is a view of a tensor of the file lies there, any other is computed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from runner.errors import ModelError
from runner.placement.agreement import Disagreement, disagreement
from runner.placement.families import families, kept_in_float32

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from runner.files.header import TensorInfo
    from runner.placement.single_file import Checkpoint

# how the names of each component begin in a whole checkpoint
_ROOT = re.compile(
    r"model\.diffusion_model\.|model_ema\.|vae\.|first_stage_model\.|cond_stage_model\.|denoiser\."
    r"|(?:conditioner\.embedders|text_encoders)\.[^.]+\."
)
BESIDE_TEXT = {"logit_scale", "text_projection", "position_ids", "spiece_model"}
"""Parts of names in files of text encoders: what the encoder of a pipeline does not compute with.

CLIP's scale is for training, and a ``CLIPTextModel`` has no projection; positions are made by the class; the
last is the vocabulary of a tokenizer.
"""
OTHER_TOWERS = {
    "Text": {"vision_model", "visual_projection"},
    "Vision": {"text_model", "logit_bias"},
}
"""What files of CLIP or SigLIP hold beside the one encoder whose class has this word in its name."""


@dataclass(frozen=True)
class Places:
    """The file's tensors, each with memory of its own."""

    tensors: Mapping[str, TensorInfo]
    owners: dict[int, tuple[str, torch.Tensor]]
    """The name of the tensor that each memory is of, which is kept: another would get what is freed."""

    def bytes_of(self, name: str) -> torch.Tensor:
        info = self.tensors[name]
        raw = torch.empty(info.end - info.start, dtype=torch.uint8, device="meta")
        self.owners[_memory_of(raw)] = name, raw
        return raw

    def owner(self, weight: torch.Tensor) -> str | None:
        """The tensor of the file whose memory a weight has; None if it is computed."""
        return self.owners.get(_memory_of(weight), (None,))[0]

    def of(self, weight: torch.Tensor) -> tuple[str, list[int]] | None:
        """The dtype in the file of a weight, and its extent there; None if it is computed."""
        name = self.owner(weight)
        if name is None or not weight.is_contiguous():
            return None
        info = self.tensors[name]
        start = info.start + int(weight.storage_offset()) * weight.element_size()
        return info.dtype, [start, start + int(weight.numel()) * weight.element_size()]


def _memory_of(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)  # noqa: SLF001 - meta tensors have no address


def shape_of(weight: torch.Tensor) -> torch.Size:
    """The shape of the numbers that it stands for."""
    return torch.Size(getattr(weight, "quant_shape", weight.shape))


def check_weights(
    cls: Any, model: torch.nn.Module, weights: Mapping[str, torch.Tensor], left: Iterable[str]
) -> None:
    """Refuse weights that are missing, unexpected, or of another shape or kind of numbers.

    ``left`` are tensors of the file that were not converted.

    Raises:
        ModelError: there are some.

    """
    own = model.state_dict()
    there = weights.keys() & own.keys()
    more = beside(cls)
    found = {
        "missing_keys": untied(model, own.keys() - weights.keys(), there),
        "unexpected_keys": [
            name for name in (*(weights.keys() - own.keys()), *left) if more.isdisjoint(name.split("."))
        ],
        "mismatched_keys": [
            (n, shape_of(weights[n]), own[n].shape) for n in there if shape_of(weights[n]) != own[n].shape
        ],
    }
    agreement = replace(
        Disagreement.of(found),
        not_numbers=[n for n in sorted(there) if not _is_of_its_kind(weights[n], own[n])],
    )
    if message := disagreement(cls, agreement):
        raise ModelError(f"its tensors {message}")


def beside(cls: Any) -> set[str]:
    """Parts of the names of tensors that files hold beside the weights of a class."""
    if "transformers" not in families(cls):
        return set()
    return BESIDE_TEXT.union(*(names for kind, names in OTHER_TOWERS.items() if kind in cls.__name__))


def _is_of_its_kind(weight: torch.Tensor, own: torch.Tensor) -> bool:
    """Whether both are floating-point numbers or neither is, which libraries do not check."""
    if hasattr(weight, "quant_type"):
        return own.is_floating_point()
    return weight.is_floating_point() == own.is_floating_point() and weight.dtype != torch.float8_e8m0fnu


def untied(model: torch.nn.Module, missing: set[str], there: set[str]) -> list[str]:
    """The missing weights without those that are tied to one that is there."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    known = {id(parameters[name]) for name in there if name in parameters}
    return [name for name in missing if id(parameters.get(name)) not in known]


def left_over(checkpoint: Checkpoint, weights: Mapping[str, torch.Tensor], places: Places) -> list[str]:
    """The file's tensors that the conversion has not taken, without those of other components.

    It also takes tensors of others, to look at their shapes.
    """
    if checkpoint is weights:
        return []
    used = {name for weight in weights.values() if (name := places.owner(weight))}
    roots = {root_of(name) for name in used or checkpoint.taken}
    return [name for name in checkpoint if name not in checkpoint.taken and root_of(name) in roots]


def root_of(name: str) -> str:
    """How the name of a tensor begins in a whole checkpoint, by its component; empty for other names."""
    match = _ROOT.match(name)
    return match[0] if match else ""


def is_dequantised(cls: Any, model: torch.nn.Module, name: str, weight: torch.Tensor) -> bool:
    """Whether diffusers makes float32 of a weight in a format of GGML when it loads it.

    Raises:
        ModelError: it would neither do that nor compute with it as it is.

    """
    if not hasattr(weight, "quant_type"):
        return False
    if not kept_in_float32(cls, torch.float16).isdisjoint(name.split(".")):
        return True
    owner, _, last = name.rpartition(".")
    if last == "weight" and isinstance(model.get_submodule(owner), torch.nn.Linear):
        return False
    raise ModelError(
        f"it holds '{name}' as {weight.quant_type.name}, and diffusers dequantises matrices of linear layers "
        "alone: get another file, in which only these are quantised"
    )
