"""Finds what a file with several components holds: each component's weights, whole or in part.

It is read from the file's header: diffusers converts tensors without memory, on the device "meta".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from runner.errors import ModelError
from runner.placement.file_agreement import Places, root_of, untied
from runner.placement.single_file import checkpoint_of, converted
from runner.plugins import load_object

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.files.header import TensorInfo

ROOTS = {
    "unet": ("model.diffusion_model.",),
    "transformer": ("model.diffusion_model.",),
    "vae": ("first_stage_model.", "vae."),
    "text_encoder": ("cond_stage_model.", "conditioner.embedders.", "text_encoders."),
}
"""How the names of a component's tensors begin, by the start of the component's name."""


def repository_of(tensors: Mapping[str, TensorInfo]) -> str:
    """The repository on the hub from which diffusers takes the configs for such a file."""
    from diffusers.loaders.single_file_utils import fetch_diffusers_config

    found = fetch_diffusers_config(checkpoint_of(tensors, Places(tensors, {}).bytes_of))
    return str(found["pretrained_model_name_or_path"])


def held(tensors: Mapping[str, TensorInfo], components: Mapping[str, tuple[str, Any]]) -> list[str]:
    """The names of the components whose weights are in the file; each has its class and its config.

    Raises:
        ModelError: the file has a part of a component's weights alone, which others would take the place of.

    """
    used = {name: _roots_used(tensors, *one) for name, one in components.items()}
    whole = {name: roots for name, roots in used.items() if roots is not None}
    unused = {root_of(name) for name in tensors}.difference(*whole.values())
    for name in components:
        mine = ROOTS.get(name.rstrip("_0123456789"), ())
        if name not in whole and (roots := sorted(root for root in unused if root.startswith(mine))):
            raise ModelError(
                f"its tensors '{roots[0]}...' are not all that its {name} needs, or of another model: fetch "
                f"the file again, or write where to take it from, [model.components] {name} = ..."
            )
    return [*whole]


def _roots_used(
    tensors: Mapping[str, TensorInfo], cls_name: str, config: Mapping[str, Any]
) -> set[str] | None:
    """How the tensors that become a component begin in their names; None if it lacks some weights."""
    cls = load_object(cls_name)
    if not (isinstance(cls, type) and issubclass(cls, torch.nn.Module)):
        return None
    places = Places(tensors, {})
    try:
        model, weights = converted(cls, checkpoint_of(tensors, places.bytes_of), config)
    except Exception:  # the conversion misses what it needs
        return None
    if untied(model, model.state_dict().keys() - weights.keys(), {*weights}):
        return None
    return {root_of(name) for weight in weights.values() if (name := places.owner(weight)) is not None}
