"""Turns exceptions of libraries about a model's files into errors that name the component and the files."""

from __future__ import annotations

import sys
import traceback
from typing import TYPE_CHECKING, Any

from runner.accelerator.backends import is_out_of_memory
from runner.errors import ModelError, RunnerError, in_words
from runner.placement.vocabulary import files_hint, is_tokenizer
from runner.redact import redact

if TYPE_CHECKING:
    from pathlib import Path

    from runner.api import Component


def as_model_error(error: Exception, cls: Any, component: Component, folder: Path) -> Exception:
    """A ModelError for an error that the files caused, its traceback logged; any other error as it is."""
    library = hasattr(cls, "from_pretrained")
    if isinstance(error, RunnerError) or is_out_of_memory(error) or not library:
        return error
    sys.stderr.write(redact(traceback.format_exc()))
    first = in_words(error).strip().splitlines()[0]
    reads = f"; {files_hint(cls)}" if is_tokenizer(cls) else ""
    return ModelError(
        f"component '{component.name}' cannot be loaded from {folder / component.path}: {first[:500]}{reads}"
    )
