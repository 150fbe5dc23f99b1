"""Finds the layout of a single file: ``python -m runner.worker.layout PARENT``, JSON on stdin and stdout.

Tensors are on the device "meta": they have no numbers, and take no memory. A weight of the class that is a
view of a tensor of the file lies in the file; any other is computed.
"""

from __future__ import annotations

import json
import math
import os
import sys
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch

from runner.errors import ModelError, in_words
from runner.files.header import tensors_from_json
from runner.model.shapes import CONVERTED
from runner.placement.agreement import Disagreement, disagreement
from runner.placement.file_agreement import Places, check_weights, is_dequantised, left_over, shape_of
from runner.placement.library import without_weights
from runner.placement.prepared_folder import tensors_of
from runner.placement.single_file import DTYPES, checkpoint_of, converted
from runner.placement.whole_checkpoint import held, repository_of
from runner.plugins import load_object
from runner.redact import redact
from runner.worker import parent_watch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.files.header import TensorInfo


def layout_of(request: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to a request: tensors by the class's names, and which of them are computed.

    Raises:
        ModelError: the file is not one of the class.

    """
    if "checkpoint" in request:
        return _whole(request)
    if "prepare" in request:
        cls = load_object(request["class"])
        return _prepared(cls, request["config"], request["prepare"] or CONVERTED, request["dtype"])
    return _file_layout(request["class"], request["config"], tensors_from_json(request["tensors"]))


def _file_layout(
    cls_name: str, config: Mapping[str, Any], tensors: Mapping[str, TensorInfo]
) -> dict[str, Any]:
    cls = load_object(cls_name)
    places = Places(tensors, {})
    checkpoint = checkpoint_of(tensors, places.bytes_of)
    try:
        model, weights = converted(cls, checkpoint, config)
    except ModelError:
        raise
    except Exception as error:
        raise _not_of(cls, config, tensors) from error
    check_weights(cls, model, weights, left_over(checkpoint, weights, places))
    answer: dict[str, Any] = {"tensors": {}, "computed": []}
    own = model.state_dict()
    for name, weight in weights.items():
        if name not in own:
            continue
        shape = list(shape_of(weight))
        place = places.of(weight)
        if place and not is_dequantised(cls, model, name, weight):
            answer["tensors"][name] = [place[0], shape, place[1]]
        else:
            answer["computed"].append(name)
            dtype, size = _stored(weight)
            answer["tensors"][name] = [dtype, shape, [0, size]]
    return answer


def _not_of(cls: Any, config: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> ModelError:
    """The error for a file that diffusers' conversion fails on, because tensors are missing.

    diffusers converts any file without exactly the class's names; one with most of them is compared by name.
    """
    own = without_weights(cls, config).state_dict()
    if 2 * len(own.keys() & tensors.keys()) > len(own):
        found = {"missing_keys": own.keys() - tensors.keys(), "unexpected_keys": tensors.keys() - own.keys()}
        return ModelError(f"its tensors {disagreement(cls, Disagreement.of(found))}")
    return ModelError(
        f"its tensors are not those of a {cls.__name__}, in no layout that diffusers converts (it holds "
        f"{next(iter(tensors), 'none')}, ...)"
    )


def _whole(request: Mapping[str, Any]) -> dict[str, Any]:
    """For a whole checkpoint: the repository with its configs, or which of ``components`` it holds.

    ``also`` has the layouts of these, with the requests that would ask for them, for the caller's cache.
    """
    tensors = tensors_from_json(request["checkpoint"])
    if "components" not in request:
        return {"repository": repository_of(tensors)}
    holds, also = held(tensors, request["components"]), []
    for name in holds:
        cls, config = request["components"][name]
        with suppress(ModelError):  # it is raised again when the component is loaded
            also.append([{"class": cls, "config": config}, _file_layout(cls, config, tensors)])
    return {"holds": holds, "also": also}


def _prepared(cls: Any, config: Mapping[str, Any], scheme: str, dtype: str) -> dict[str, Any]:
    """The tensors of a component once :mod:`runner.placement.prepared_folder` has written it."""
    tensors = tensors_of(cls, without_weights(cls, config), scheme, getattr(torch, dtype))
    return {
        "tensors": {
            name: [dtype, list(tensor.shape), [0, size]]
            for name, tensor in tensors.items()
            for dtype, size in [_stored(tensor)]
        },
        "computed": [],
    }


def _stored(weight: torch.Tensor) -> tuple[str, int]:
    """The dtype of a computed weight, as headers name it, and its bytes; of GGML's formats, dequantised."""
    if hasattr(weight, "quant_type"):
        return "F32", 4 * math.prod(shape_of(weight))
    name = next(name for name, dtype in DTYPES.items() if dtype == weight.dtype)
    return name, weight.numel() * weight.element_size()


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
