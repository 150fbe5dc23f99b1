"""Checks what a stage returned against its declaration, then writes it to the disk."""

from __future__ import annotations

import io
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save

from runner.api import DTYPE_KINDS, File, Stage, Tensor, Text
from runner.files import handoff, provenance
from runner.files.storage import write_atomically
from runner.worker import finite

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.protocol import JobItem


TEXT_LIMIT = 1 << 20  # bytes; it stands in the hand-off's header


class OutputError(Exception):
    """A stage returned something other than it declared; the item fails, and the plugin is to blame."""


@dataclass(frozen=True)
class Outputs:
    """What a stage returned for one item, checked: tensors on the CPU, texts, and files as bytes, by name."""

    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)


def check_outputs(stage: Stage, returned: Any, save_dtype: torch.dtype | None) -> Outputs:
    """Check what a stage returned; tensors of floating point are cast to ``save_dtype``, if one is given.

    Raises:
        OutputError: it is not what the stage declares, or not finite.

    """
    outputs = Outputs()
    for declared, value in _declared(stage, returned):
        if isinstance(declared, Tensor):
            outputs.tensors[declared.name] = _tensor(declared, value, save_dtype)
        elif isinstance(declared, Text):
            outputs.texts[declared.name] = _text(declared, value)
        else:
            outputs.files[declared.name] = _file_bytes(declared, value)
    return outputs


def write_outputs(item: JobItem, outputs: Outputs, provenance_: Mapping[str, Any]) -> None:
    """Write the outputs of one item: files first, then the hand-off that records them.

    Raises:
        StorageError: they cannot be written.

    """
    texts = outputs.texts
    # texts of a terminal stage are written as files
    files = outputs.files | {name: text.encode() for name, text in texts.items() if name in item.files}
    recorded = {}
    for name, data in files.items():
        path = item.files[name]
        metadata = {**provenance_, "output": name}
        if item.handoff is not None and path.parent == item.handoff.parent:
            content = provenance.with_provenance(data, metadata)
            write_atomically(path, content)
            recorded[name] = handoff.record_of_file(path.name, content)
        else:
            provenance.write_with_provenance(path, data, metadata)
    if item.handoff is not None:
        tables = {**provenance_, "item": item.id, "text": texts, "files": recorded}
        header = {
            name: value if isinstance(value, str) else json.dumps(value, sort_keys=True)
            for name, value in tables.items()
        }
        write_atomically(item.handoff, handoff.seal(save(_apart(outputs.tensors)), header))


def _apart(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors, each with memory of its own: the format has no way to share it."""
    storages = [tensor.untyped_storage().data_ptr() for tensor in tensors.values()]
    return {
        name: tensor.clone() if storages.count(tensor.untyped_storage().data_ptr()) > 1 else tensor
        for name, tensor in tensors.items()
    }


def _declared(stage: Stage, returned: Any) -> list[tuple[Tensor | Text | File, Any]]:
    if not isinstance(returned, dict):
        raise OutputError(f"{stage.name} returned {type(returned).__name__}, not a dict of outputs")
    declared = {output.name: output for output in stage.outputs}
    unknown = sorted(set(returned) - set(declared))
    if unknown:
        raise OutputError(f"{stage.name} returned '{unknown[0]}', which it does not declare")
    absent = [n for n, o in declared.items() if returned.get(n) is None and not o.optional]
    if absent:
        raise OutputError(f"{stage.name} did not return '{absent[0]}'")
    return [(o, returned[n]) for n, o in declared.items() if returned.get(n) is not None]


def _tensor(declared: Tensor, value: Any, save_dtype: torch.dtype | None) -> torch.Tensor:
    if not isinstance(value, torch.Tensor):
        raise OutputError(f"'{declared.name}' is {type(value).__name__}, not a tensor")
    value = _cast(declared.name, value, save_dtype)
    if declared.shape is not None:
        fits = len(declared.shape) == value.ndim and all(
            want == size for want, size in zip(declared.shape, value.shape, strict=True) if type(want) is int
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


def _cast(name: str, value: torch.Tensor, save_dtype: torch.dtype | None) -> torch.Tensor:
    """The tensor as it is handed off, finite before and after it is cast."""
    told = f"'{name}' holds NaN or infinite values as"
    if not finite.is_finite(value):
        dtype = _name(value.dtype)
        raise OutputError(f"{told} {dtype}; {finite.REMEDIES.get(dtype, finite.DAMAGED)}")
    if save_dtype is None or not value.is_floating_point():
        return value
    value = value.to(save_dtype)
    if not finite.is_finite(value):
        raise OutputError(f"{told} {_name(save_dtype)}; {finite.SAVED}")
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
