"""Writes a component into a folder of the cache, quantised or converted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from runner.events import Prepared
from runner.model.fingerprint import refuse_changed
from runner.placement.prepared_folder import write_folder
from runner.plugins import load_object
from runner.worker.load_errors import as_model_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.events import Event
    from runner.files.hashes import Identities
    from runner.model.preparation import Preparation


def prepare_component(request: Preparation, report: Callable[[Event], None], files: Identities) -> None:
    """Write the folder, and report the bytes that are done; ``files`` are as in a job.

    Raises:
        ModelError: the weights in the files are not those of the class.
        StorageError: the folder cannot be written.

    """
    opened = request.place.open()
    cls = load_object(request.component.cls)
    dtype: torch.dtype = getattr(torch, request.dtype)
    try:
        write_folder(
            cls,
            opened,
            request.scheme,
            dtype,
            request.target,
            lambda done, total: report(Prepared(done=done, total=total)),
            lambda: refuse_changed(files),
        )
    except Exception as error:
        raise as_model_error(error, cls, opened.component, opened.folder) from error
