"""Writes a component into a folder of the cache, quantised or converted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from runner.events import Prepared
from runner.placement.prepared_folder import write_folder
from runner.plugins import load_object
from runner.worker.load_errors import as_model_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.events import Event
    from runner.model.preparation import Preparation


def prepare_component(request: Preparation, report: Callable[[Event], None]) -> None:
    """Write the folder, and report the bytes that are done.

    Raises:
        ModelError: the weights in the files are not those of the class.
        StorageError: the folder cannot be written.

    """
    files = request.place.open()
    cls = load_object(request.component.cls)
    dtype: torch.dtype = getattr(torch, request.dtype)
    try:
        write_folder(
            cls,
            files,
            request.scheme,
            dtype,
            request.target,
            lambda done, total: report(Prepared(done=done, total=total)),
        )
    except Exception as error:
        raise as_model_error(error, cls, files.component, files.folder) from error
