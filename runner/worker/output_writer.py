"""A stage's outputs: checked against its declaration, then written as hand-off and files."""

from __future__ import annotations

import io
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save

from runner.api import DTYPE_KINDS, Bundle, Bundled, File, Output, Stage, Tensor, Text
from runner.files import handoff, provenance
from runner.files.storage import write_atomically
from runner.worker import finite

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.protocol import JobItem


TEXT_LIMIT = 1 << 20  # bytes: texts are in the hand-off's header


class OutputError(Exception):
    """A stage's outputs or inputs are not as declared: the item fails."""


@dataclass(frozen=True)
class Outputs:
    """One item's outputs by name, checked and converted, on the CPU."""

    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    bundles: dict[str, Bundled] = field(default_factory=dict)


def check_outputs(stage: Stage, returned: Any, dtype: torch.dtype, save_dtype: torch.dtype | None) -> Outputs:
    """Check what a stage returned against its declared outputs, and cast tensors to ``save_dtype``.

    ``dtype`` is the one that the stage computes in: of a bundle's tensors, only those of that dtype are cast.

    Raises:
        OutputError: an output is missing, not as declared, or not finite.

    """
    outputs = Outputs()
    for declared, value in _declared(stage, returned):
        if isinstance(declared, Tensor):
            outputs.tensors[declared.name] = _tensor(declared, value, save_dtype)
        elif isinstance(declared, Text):
            outputs.texts[declared.name] = _text(declared, value)
        elif isinstance(declared, Bundle):
            outputs.bundles[declared.name] = _bundle(declared, value, dtype, save_dtype)
        else:
            outputs.files[declared.name] = _file_bytes(declared, value)
    return outputs


def write_outputs(item: JobItem, outputs: Outputs, provenance_: Mapping[str, Any]) -> None:
    """Write one item's files, then the hand-off that records them.

    Raises:
        StorageError: they cannot be written.

    """
    # a last stage's texts are written as files
    texts = {name: text.encode() for name, text in outputs.texts.items() if name in item.files}
    recorded = {}
    for name, data in {**outputs.files, **texts}.items():
        path = item.files[name]
        made = {**provenance_, "output": name}
        if item.handoff is not None and path.parent == item.handoff.parent:
            content = provenance.with_provenance(data, made)
            write_atomically(path, content)
            recorded[name] = handoff.record_of_file(path.name, content)
        else:
            provenance.write_with_provenance(path, data, made)
    if item.handoff is not None:
        bundles = {name: bundle.values for name, bundle in outputs.bundles.items()}
        tables = {
            **provenance_,
            "item": item.id,
            "text": outputs.texts,
            "files": recorded,
            "bundles": bundles,
        }
        metadata = {
            name: value if isinstance(value, str) else json.dumps(value, sort_keys=True)
            for name, value in tables.items()
        }
        write_atomically(item.handoff, handoff.seal(save(_apart(_named(outputs))), metadata))


def _named(outputs: Outputs) -> dict[str, torch.Tensor]:
    """All tensors of an item by their names in the hand-off."""
    bundled = {
        handoff.bundled_name(bundle, name): tensor
        for bundle, value in outputs.bundles.items()
        for name, tensor in value.tensors.items()
    }
    return {**outputs.tensors, **bundled}


def _apart(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors, each with memory of its own: safetensors refuses shared memory."""
    storages = [tensor.untyped_storage().data_ptr() for tensor in tensors.values()]
    return {
        name: tensor.clone() if storages.count(tensor.untyped_storage().data_ptr()) > 1 else tensor
        for name, tensor in tensors.items()
    }


def _declared(stage: Stage, returned: Any) -> list[tuple[Output, Any]]:
    if not isinstance(returned, dict):
        raise OutputError(f"{stage.name} returned {type(returned).__name__}, not a dict of outputs")
    declared = {output.name: output for output in stage.outputs}
    unknown = sorted(set(returned) - set(declared))
    if unknown:
        raise OutputError(f"{stage.name} returned '{unknown[0]}', which it does not declare")
    missing = [n for n, o in declared.items() if returned.get(n) is None and not o.optional]
    if missing:
        raise OutputError(f"{stage.name} did not return '{missing[0]}'")
    return [(o, returned[n]) for n, o in declared.items() if returned.get(n) is not None]


def _tensor(declared: Tensor, value: Any, save_dtype: torch.dtype | None) -> torch.Tensor:
    if not isinstance(value, torch.Tensor):
        raise OutputError(f"'{declared.name}' is {type(value).__name__}, not a tensor")
    value = _cast(declared.name, value, save_dtype)
    if declared.shape is not None:
        fits = len(declared.shape) == value.ndim and all(
            expected == size
            for expected, size in zip(declared.shape, value.shape, strict=True)
            if type(expected) is int
        )
        if not fits:
            shape = tuple(value.shape)
            raise OutputError(f"'{declared.name}' has shape {shape}, declared is {declared.shape}")
    dtype = _name(value.dtype)
    allowed = DTYPE_KINDS.get(declared.dtype, (declared.dtype,))
    cast = save_dtype is not None and value.is_floating_point()
    if declared.dtype != "any" and dtype not in allowed and not cast:
        raise OutputError(f"'{declared.name}' is {dtype}, declared is {declared.dtype}")
    on_cpu: torch.Tensor = value.detach().to("cpu").contiguous()
    return on_cpu


def _bundle(declared: Bundle, value: Any, dtype: torch.dtype, save_dtype: torch.dtype | None) -> Bundled:
    """A bundle with its tensors on the CPU; infinite values, as in attention masks, are allowed."""
    if not isinstance(value, Bundled):
        raise OutputError(f"'{declared.name}' is {type(value).__name__}, not a Bundled")
    try:
        json.dumps(value.values, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise OutputError(f"the values of '{declared.name}' are not JSON: {error}") from None
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in value.tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            kind = type(tensor).__name__
            raise OutputError(f"'{declared.name}' has {kind} as {name!r}, not a tensor with a name")
        kept = tensor.detach()
        if finite.has_nan(kept):
            remedy = finite.REMEDIES.get(_name(kept.dtype), finite.DAMAGED)
            raise OutputError(f"'{name}' of '{declared.name}' holds NaN as {_name(kept.dtype)}; {remedy}")
        if save_dtype is not None and kept.dtype == dtype:
            kept = kept.to(save_dtype)
        tensors[name] = kept.to("cpu").contiguous()
    return Bundled(tensors, value.values)


def _cast(name: str, value: torch.Tensor, save_dtype: torch.dtype | None) -> torch.Tensor:
    """The tensor in ``save_dtype``, checked to be finite before and after the cast."""
    problem = f"'{name}' holds NaN or infinite values as"
    if not finite.is_finite(value):
        dtype = _name(value.dtype)
        raise OutputError(f"{problem} {dtype}; {finite.REMEDIES.get(dtype, finite.DAMAGED)}")
    if save_dtype is None or not value.is_floating_point():
        return value
    value = value.to(save_dtype)
    if not finite.is_finite(value):
        raise OutputError(f"{problem} {_name(save_dtype)}; {finite.SAVED}")
    return value


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _text(declared: Text, value: Any) -> str:
    if not isinstance(value, str):
        raise OutputError(f"'{declared.name}' is {type(value).__name__}, not a string")
    if len(value.encode("utf-8", "replace")) > TEXT_LIMIT:
        raise OutputError(f"'{declared.name}' is longer than {TEXT_LIMIT >> 20} MiB; return it as a File")
    return value


def _file_bytes(declared: File, value: Any) -> bytes:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, os.PathLike):
        return Path(value).read_bytes()
    if hasattr(value, "save"):
        buffer = io.BytesIO()
        value.save(buffer, format=declared.suffix.lstrip(".").upper().replace("JPG", "JPEG") or None)
        return buffer.getvalue()
    kind = type(value).__name__
    raise OutputError(f"'{declared.name}' is {kind}, not bytes, a path or an image")
