"""What libraries raise about files that are not what they should be, as errors that users can mend."""

from __future__ import annotations

import sys
import traceback
from typing import TYPE_CHECKING, Any

from runner.errors import ModelError, RunnerError, in_words
from runner.placement.vocabulary import is_tokenizer, read_from
from runner.redact import redact
from runner.worker.allocator import is_out_of_memory

if TYPE_CHECKING:
    from pathlib import Path

    from runner.api import Component


def as_model_error(error: Exception, cls: Any, component: Component, folder: Path) -> Exception:
    """The error itself where the files are not to blame; the traceback of one that is renamed is logged."""
    library = hasattr(cls, "from_pretrained")
    if isinstance(error, RunnerError) or is_out_of_memory(error) or not library:
        return error
    sys.stderr.write(redact(traceback.format_exc()))
    first = in_words(error).strip().splitlines()[0]
    reads = f"; {read_from(cls)}" if is_tokenizer(cls) else ""
    return ModelError(
        f"component '{component.name}' cannot be loaded from {folder / component.path}: {first[:500]}{reads}"
    )
