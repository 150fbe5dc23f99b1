"""Quantises a component into a folder of the cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from runner.events import Quantised
from runner.placement.quantise import quantise
from runner.plugins import load_object
from runner.worker.load_errors import as_model_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.events import Event
    from runner.model.quantising import Quantising


def quantise_component(request: Quantising, report: Callable[[Event], None]) -> None:
    """Write the folder, and report the bytes that are done.

    Raises:
        ModelError: the weights in the files are not those of the class.
        StorageError: the folder cannot be written.

    """
    files = request.place.open()
    cls = load_object(request.component.cls)
    dtype: torch.dtype = getattr(torch, request.dtype)
    try:
        quantise(
            cls,
            files,
            request.scheme,
            dtype,
            request.target,
            lambda done, total: report(Quantised(done=done, total=total)),
        )
    except Exception as error:
        raise as_model_error(error, cls, files.component, files.folder) from error
