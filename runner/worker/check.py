"""Looking at components without their weights: each is loaded by its library from headers and zeros.

The files that are made for it are sparse: they have the size of the real ones, and take no room on the disk.
"""

from __future__ import annotations

import json
import sys
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from runner.errors import ModelError
from runner.model.files import CONFIG, open_component
from runner.placement.library import has_own_loader, open_uncast
from runner.placement.vocabulary import check_files, check_merges, check_vocabulary, is_tokenizer
from runner.plugins import load_object
from runner.redact import redact
from runner.worker.load_errors import as_model_error

if TYPE_CHECKING:
    from runner.model.checks.request import ComponentCheck
    from runner.model.shapes import ComponentShapes

WEIGHTS = "model.safetensors", "diffusion_pytorch_model.safetensors"


def problem_of(check: ComponentCheck) -> str | None:
    """What is wrong with a component: empty if nothing is, None if it cannot be told before it is loaded."""
    try:
        cls = load_object(check.shapes.component.cls)
        if isinstance(cls, type) and issubclass(cls, torch.nn.Module):
            _check_weights(cls, check)
        elif is_tokenizer(cls):
            _check_tokenizer(cls, check)
    except ModelError as error:
        return str(error)
    except (Exception, SystemExit):  # the worker of the stage will meet it, with the real files
        sys.stderr.write(redact(traceback.format_exc()))
        return None
    return ""


def _check_weights(cls: Any, check: ComponentCheck) -> None:
    if not check.shapes.tensors or has_own_loader(cls):
        return
    component = check.shapes.component
    with tempfile.TemporaryDirectory(prefix="runner-check-") as place:
        _write_stand_in(cls, check.shapes, Path(place))
        try:
            open_uncast(cls, open_component(Path(place), component), torch.float32)
        except Exception as error:
            told = as_model_error(error, cls, component, Path(place))
            if isinstance(told, ModelError):
                raise ModelError(str(told).replace(place, check.shown)) from None
            raise


def _write_stand_in(cls: Any, shapes: ComponentShapes, model: Path) -> None:
    """A component's folder with its config and, in one file, tensors of its names, shapes and dtypes."""
    folder = model / shapes.component.path
    folder.mkdir(parents=True)
    if shapes.config:
        (folder / CONFIG).write_text(json.dumps(shapes.config))
    tables, at = {}, 0
    for name, info in shapes.tensors.items():
        size = info.end - info.start
        tables[name] = {"dtype": info.dtype, "shape": info.shape, "data_offsets": [at, at + size]}
        at += size
    header = json.dumps({"__metadata__": {"format": "pt"}, **tables}).encode()
    header += b" " * (-len(header) % 8)
    with (folder / WEIGHTS["diffusers" in _libraries(cls)]).open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + at)


def _libraries(cls: type) -> set[str]:
    return {base.__module__.partition(".")[0] for base in cls.__mro__}


def _check_tokenizer(cls: Any, check: ComponentCheck) -> None:
    component, shown = check.shapes.component, Path(check.shown)
    if check.folder is None:
        check_files(cls, component, shown, check.shapes.names)
        return
    try:
        tokenizer = cls.from_pretrained(str(check.folder / component.path))
    except Exception as error:
        raise as_model_error(error, cls, component, check.folder) from error
    check_vocabulary(tokenizer, component, shown, check.embeddings)
    check_merges(tokenizer, component, shown)
