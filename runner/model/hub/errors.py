"""Error messages about models on the hub."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.errors import ModelError, StorageError
from runner.manifest.schema import LoraSource, PartSource

if TYPE_CHECKING:
    from runner.manifest.schema import Source

# class names, because the HTTP library depends on the version of huggingface_hub
_UNREACHABLE = {
    "LocalEntryNotFoundError",
    "ConnectError",
    "ConnectionError",
    "Timeout",
    "TimeoutError",
    "TimeoutException",
}


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids the use of the network."""
    from huggingface_hub.constants import HF_HUB_OFFLINE

    return bool(HF_HUB_OFFLINE)


def explained(source: Source, error: Exception, state: str = "") -> ModelError | StorageError:
    """The user error for an error of the hub's client; ``state`` describes what is missing here."""
    from huggingface_hub import errors

    name = title(source)
    state = state or f"{name} is not (completely) on this machine"
    if isinstance(error, errors.GatedRepoError):
        return ModelError(
            f"{name} is gated: accept its licence on the model's page, then log in with `hf auth login` "
            "or set HF_TOKEN to a token that may read it"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return ModelError(f"{name} was not found: the model has no revision '{source.revision}'")
    if isinstance(error, errors.RepositoryNotFoundError):
        return ModelError(
            f"{name} was not found: check the name; a private model needs HF_TOKEN or `hf auth login`"
        )
    if isinstance(error, errors.OfflineModeIsEnabled):
        return offline(source, state)
    kinds = {base.__name__ for base in type(error).__mro__}
    if kinds & _UNREACHABLE:
        return ModelError(f"{state}, and the hub cannot be reached; try again")
    if isinstance(error, OSError) and error.errno is not None:
        return StorageError(f"cannot store {name}: {error.strerror or error}")
    first = str(error).strip().splitlines()[:1]
    return ModelError(
        f"{name} could not be fetched completely: {type(error).__name__}: {first[0] if first else ''} "
        "(run it again: files that are complete are kept)"
    )


def offline(source: Source, state: str) -> ModelError:
    """The error for a model that is not completely on this machine, in offline mode."""
    key = f"components.{source.component}" if isinstance(source, PartSource) else "source"
    return ModelError(
        f"{state}, and HF_HUB_OFFLINE forbids fetching it: unset it, or set `{key}` to a folder on this "
        "machine, which starts with ./, / or ~"
    )


def title(source: Source) -> str:
    """The name of a model in messages, or of a component and the model that it is from."""
    name = f"model '{source.source}'" + (f" at '{source.revision}'" if source.revision else "")
    if isinstance(source, LoraSource):
        return (
            f"the LoRA {source.file or source.source} ({name})"
            if source.file
            else f"the LoRA {source.source}"
        )
    return f"component '{source.component}' ({name})" if isinstance(source, PartSource) else name
