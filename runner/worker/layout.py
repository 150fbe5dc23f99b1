"""Finds the layout of a single file: ``python -m runner.worker.layout PARENT``, JSON on stdin and stdout.

Tensors are on the device "meta": they have no numbers, and take no memory. A weight of the class that is a
view of a tensor of the file lies in the file; any other is computed.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import traceback
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from runner.errors import ModelError, in_words
from runner.files.header import TensorInfo
from runner.model.shapes import CONVERTED
from runner.placement.agreement import Disagreement, disagreement
from runner.placement.library import without_weights
from runner.placement.prepared_folder import tensors_of
from runner.placement.single_file import DTYPES, Checkpoint, checkpoint_of, converted
from runner.plugins import load_object
from runner.redact import redact
from runner.worker import parent_watch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# how the names of each component begin in a whole checkpoint
ROOTS = (
    "model.diffusion_model.",
    "model_ema.",
    "vae.",
    "first_stage_model.",
    "cond_stage_model.",
    "conditioner.",
    "text_encoders.",
)


@dataclass(frozen=True)
class _Places:
    """The file's tensors, each with memory of its own."""

    tensors: Mapping[str, TensorInfo]
    owners: dict[int, str]
    """The name of the tensor that each memory is of."""

    def bytes_of(self, name: str) -> torch.Tensor:
        info = self.tensors[name]
        raw = torch.empty(info.end - info.start, dtype=torch.uint8, device="meta")
        self.owners[_memory(raw)] = name
        return raw

    def of(self, weight: torch.Tensor) -> tuple[str, list[int]] | None:
        """The dtype in the file of a weight, and its extent there; None if it is computed."""
        name = self.owners.get(_memory(weight))
        if name is None or not weight.is_contiguous():
            return None
        info = self.tensors[name]
        start = info.start + int(weight.storage_offset()) * weight.element_size()
        return info.dtype, [start, start + int(weight.numel()) * weight.element_size()]


def _memory(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)  # noqa: SLF001 - meta tensors have no address


def layout_of(request: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to a request: tensors by the class's names, and which of them are computed.

    Raises:
        ModelError: the file is not one of the class.

    """
    if "checkpoint" in request:
        return _whole(request)
    cls = load_object(request["class"])
    if "prepare" in request:
        return _prepared(cls, request["config"], request["prepare"] or CONVERTED, request["dtype"])
    tensors = _parsed(request["tensors"])
    places = _Places(tensors, {})
    checkpoint = checkpoint_of(tensors, places.bytes_of)
    with _config_folder(request["config"]) as folder:
        try:
            model, weights = converted(cls, checkpoint, folder)
        except ModelError:
            raise
        except Exception as error:
            raise _not_of(cls, request["config"], tensors) from error
    _check(cls, model, weights, checkpoint)
    answer: dict[str, Any] = {"tensors": {}, "computed": []}
    for name, weight in weights.items():
        shape = list(_shape(weight))
        if place := places.of(weight):
            answer["tensors"][name] = [place[0], shape, place[1]]
        else:
            answer["computed"].append(name)
            answer["tensors"][name] = [_stored(weight), shape, [0, weight.numel() * weight.element_size()]]
    return answer


def _not_of(cls: Any, config: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> ModelError:
    """The error for a file that diffusers' conversion fails for, since it lacks what it needs.

    It converts what has not exactly the class's own names: a file that has most of them is compared by them.
    """
    own = without_weights(cls, config).state_dict()
    if 2 * len(own.keys() & tensors.keys()) > len(own):
        found = {"missing_keys": own.keys() - tensors.keys(), "unexpected_keys": tensors.keys() - own.keys()}
        return ModelError(f"its tensors {disagreement(cls, Disagreement.of(found))}")
    return ModelError(
        f"its tensors are not those of a {cls.__name__}, in no layout that diffusers converts (it holds "
        f"{next(iter(tensors), 'none')}, ...)"
    )


def _parsed(described: Mapping[str, Any]) -> dict[str, TensorInfo]:
    return {n: TensorInfo(kind, tuple(shape), *place) for n, (kind, shape, place) in described.items()}


@contextmanager
def _config_folder(config: Mapping[str, Any]) -> Iterator[Path]:
    """A folder with a component's config, as its library reads it."""
    with tempfile.TemporaryDirectory(prefix="runner-layout-") as folder:
        Path(folder, "config.json").write_text(json.dumps(config))
        yield Path(folder)


def _whole(request: Mapping[str, Any]) -> dict[str, Any]:
    """Of a whole checkpoint: the repository with its configs, or which ``components`` it holds."""
    tensors = _parsed(request["checkpoint"])
    if "components" not in request:
        from diffusers.loaders.single_file_utils import fetch_diffusers_config

        found = fetch_diffusers_config(checkpoint_of(tensors, _Places(tensors, {}).bytes_of))
        return {"repository": found["pretrained_model_name_or_path"]}
    holds = [name for name, one in request["components"].items() if _holds(tensors, *one)]
    return {"holds": holds}


def _holds(tensors: Mapping[str, TensorInfo], cls_name: str, config: Mapping[str, Any]) -> bool:
    """Whether a file has the weights of a component: whether diffusers' conversion finds them."""
    cls = load_object(cls_name)
    if not (isinstance(cls, type) and issubclass(cls, torch.nn.Module)):
        return False
    checkpoint = checkpoint_of(tensors, _Places(tensors, {}).bytes_of)
    try:
        with _config_folder(config) as folder:
            model, weights = converted(cls, checkpoint, folder)
    except Exception:  # the conversion misses what it needs
        return False
    return not _untied(model, model.state_dict().keys() - weights.keys(), {*weights})


def _prepared(cls: Any, config: Mapping[str, Any], scheme: str, dtype: str) -> dict[str, Any]:
    """The tensors of a component once :mod:`runner.placement.prepared_folder` has written it."""
    tensors = tensors_of(cls, without_weights(cls, config), scheme, getattr(torch, dtype))
    return {
        "tensors": {
            name: [_stored(tensor), list(tensor.shape), [0, tensor.numel() * tensor.element_size()]]
            for name, tensor in tensors.items()
        },
        "computed": [],
    }


def _stored(weight: torch.Tensor) -> str:
    """The dtype of a computed weight, as headers name it."""
    if hasattr(weight, "quant_type"):
        return str(weight.quant_type.name)
    return next(name for name, dtype in DTYPES.items() if dtype == weight.dtype)


def _shape(weight: torch.Tensor) -> torch.Size:
    """The shape of the numbers that it stands for."""
    return torch.Size(getattr(weight, "quant_shape", weight.shape))


def _check(
    cls: Any, model: torch.nn.Module, weights: Mapping[str, torch.Tensor], checkpoint: Checkpoint
) -> None:
    own = model.state_dict()
    there = weights.keys() & own.keys()
    found = {
        "missing_keys": _untied(model, own.keys() - weights.keys(), there),
        "unexpected_keys": [*(weights.keys() - own.keys()), *_left(checkpoint, weights)],
        "mismatched_keys": [
            (n, _shape(weights[n]), own[n].shape) for n in there if _shape(weights[n]) != own[n].shape
        ],
    }
    if message := disagreement(cls, Disagreement.of(found)):
        raise ModelError(f"its tensors {message}")


def _untied(model: torch.nn.Module, missing: set[str], there: set[str]) -> list[str]:
    """The missing weights without those that are tied to one that is there."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    known = {id(parameters[name]) for name in there if name in parameters}
    return [name for name in missing if id(parameters.get(name)) not in known]


def _left(checkpoint: Checkpoint, weights: Mapping[str, torch.Tensor]) -> list[str]:
    """The file's tensors that the conversion has not taken, without those of other components."""
    if checkpoint is weights:
        return []
    roots = {_root(name) for name in checkpoint.taken}
    return [name for name in checkpoint if name not in checkpoint.taken and _root(name) in roots]


def _root(name: str) -> str:
    return next((root for root in ROOTS if name.startswith(root)), "")


def main() -> None:
    request = json.load(sys.stdin)
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer
    try:
        answer = layout_of(request)
    except ModelError as error:
        answer = {"error": str(error)}
    except Exception as error:  # libraries raise anything for files that they cannot read
        sys.stderr.write(redact(traceback.format_exc()))
        answer = {"error": redact(in_words(error).strip().splitlines()[0][:500])}
    json.dump(answer, answers)
    answers.flush()
    os._exit(0)


if __name__ == "__main__":
    parent_watch.bind_to_parent(int(sys.argv[1]))
    main()
