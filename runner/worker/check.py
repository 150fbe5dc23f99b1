"""Checks components before they are loaded: weights by shapes, tokenizers by loading them; and adapters."""

from __future__ import annotations

import sys
import tempfile
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from runner.errors import ModelError, in_words
from runner.events import Checked
from runner.model.checks.adapters import AdapterCheck
from runner.placement.library import has_own_loader
from runner.placement.stand_in import check_without_files
from runner.placement.vocabulary import check_files, check_merges, check_vocabulary, is_tokenizer
from runner.plugins import load_object
from runner.redact import redact
from runner.worker.load_errors import as_model_error

if TYPE_CHECKING:
    from runner.model.checks.request import ComponentCheck


def result_of(check: ComponentCheck | AdapterCheck) -> Checked:
    """The result of a component's check, or of an adapter's trial."""
    return _tried(check) if isinstance(check, AdapterCheck) else Checked(problem=problem_of(check))


def _tried(check: AdapterCheck) -> Checked:
    from runner.placement.adapter_trial import try_adapter

    try:
        return Checked(problem="", report=asdict(try_adapter(check)))
    except ModelError as error:
        return Checked(problem=f"{check.shown}: {error}")
    except Exception as error:  # of diffusers' and peft's code, which may be given any file
        sys.stderr.write(redact(traceback.format_exc()))
        return Checked(problem=f"{check.shown}: it cannot be tried on the model: {in_words(error)}")


def problem_of(check: ComponentCheck) -> str | None:
    """The problem of a component; empty if there is none, None if that is unknown until it is loaded."""
    try:
        cls = load_object(check.shapes.component.cls)
        if isinstance(cls, type) and issubclass(cls, torch.nn.Module):
            _check_weights(cls, check)
        elif is_tokenizer(cls):
            _check_tokenizer(cls, check)
    except ModelError as error:
        return str(error)
    except (Exception, SystemExit):  # the stage's worker will report it when it loads the files
        sys.stderr.write(redact(traceback.format_exc()))
        return None
    return ""


def _check_weights(cls: Any, check: ComponentCheck) -> None:
    component = check.shapes.component
    if not check.shapes.tensors or has_own_loader(cls):
        return
    with tempfile.TemporaryDirectory(prefix="runner-check-") as folder:
        try:
            check_without_files(cls, check.shapes, Path(folder))
        except Exception as error:
            model_error = as_model_error(error, cls, component, Path(folder))
            if isinstance(model_error, ModelError):
                raise ModelError(str(model_error).replace(folder, check.shown)) from None
            raise


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
