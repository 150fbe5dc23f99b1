"""How messages speak of models on the hub, and of what the hub's client says went wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.errors import ModelError, StorageError

if TYPE_CHECKING:
    from runner.manifest.schema import ModelSource

# by name: they are httpx2's, httpx's or requests', as the client's version has it
OUT_OF_REACH = {
    "LocalEntryNotFoundError",
    "ConnectError",
    "ConnectionError",
    "Timeout",
    "TimeoutError",
    "TimeoutException",
}


def is_offline() -> bool:
    """Whether the user forbids to ask the hub."""
    from huggingface_hub.constants import HF_HUB_OFFLINE

    return bool(HF_HUB_OFFLINE)


def explained(source: ModelSource, error: Exception, state: str = "") -> ModelError | StorageError:
    """The client's error in the user's words, with what to do; ``state`` says what of the model is here."""
    from huggingface_hub import errors

    name = title(source)
    state = state or f"{name} is not (wholly) on this machine"
    if isinstance(error, errors.GatedRepoError):
        return ModelError(
            f"{name} is gated: accept its licence on the model's page, then log in with `hf auth login` "
            "or set HF_TOKEN to a token that may read it"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return ModelError(f"{name} is not there: the model has no revision '{source.revision}'")
    if isinstance(error, errors.RepositoryNotFoundError):
        return ModelError(
            f"{name} is not there: check the name; a private model needs HF_TOKEN or `hf auth login`"
        )
    if isinstance(error, errors.OfflineModeIsEnabled):
        return offline(state)
    kinds = {base.__name__ for base in type(error).__mro__}
    if kinds & OUT_OF_REACH:
        return ModelError(f"{state}, and the hub cannot be reached; try again")
    if isinstance(error, OSError) and error.errno is not None:
        return StorageError(f"cannot store {name}: {error.strerror or error}")
    first = str(error).strip().splitlines()[:1]
    return ModelError(
        f"{name} could not be fetched whole: {type(error).__name__}: {first[0] if first else ''} "
        "(run it again: files that have arrived whole are kept)"
    )


def offline(state: str) -> ModelError:
    """What to do about a model that is not here whole, where the hub may not be asked."""
    return ModelError(
        f"{state}, and HF_HUB_OFFLINE forbids to fetch it: unset that, or have `source` name a folder on "
        "this machine, which starts with ./, / or ~"
    )


def title(source: ModelSource) -> str:
    """How messages name a model."""
    return f"model '{source.source}'" + (f" at '{source.revision}'" if source.revision else "")
