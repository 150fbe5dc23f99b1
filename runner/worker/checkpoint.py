"""Checkpoints of items: an interrupted item resumes from its last one, with the same result."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from runner.api import Bundled, Saved
from runner.files import handoff
from runner.files.storage import write_atomically
from runner.worker import rng

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SINGLE = "state"  # the name of a state that is one tensor
STATE, RANDOM = "state.", "random."


class DiscardedError(Exception):
    """A checkpoint that cannot be resumed; the message says why."""


@dataclass(frozen=True)
class SavedCheckpoint:
    """A loaded checkpoint, with the total number of steps and the seconds spent on it."""

    saved: Saved
    steps: int
    seconds: float


class CheckpointFile:
    """The checkpoint file of one item at one stage."""

    def __init__(self, path: Path, key: str, device: torch.device, environment: Mapping[str, Any]) -> None:
        """``environment`` (versions, device, threads) must be the same on resumption, for the same result."""
        self._path = path
        self._key = key
        self.device = device
        self._environment = environment

    def save(self, step: int, steps: int, state: Snapshot, seconds: float) -> None:
        """Save the state after a step, with the states of the random generators.

        Raises:
            StorageError: it cannot be written.

        """
        tensors = {f"{STATE}{name}": tensor.to("cpu").contiguous() for name, tensor in state.tensors.items()}
        tensors |= {f"{RANDOM}{n}": t for n, t in rng.state(self.device).items()}
        values: dict[str, Any] = {"step": step, "steps": steps, "seconds": seconds}
        if state.values is not None:
            values["values"] = json.loads(state.values)
        # the second name is that of earlier versions
        values |= {"environment": self._environment, "circumstances": self._environment}
        metadata = {name: json.dumps(value, sort_keys=True) for name, value in values.items()}
        write_atomically(self._path, handoff.seal(save_tensors(tensors), {"key": self._key, **metadata}))

    def load(self) -> SavedCheckpoint | None:
        """Load the last checkpoint and set the random generators to its states; None if there is none.

        Raises:
            DiscardedError: it is damaged, or from another environment.

        """
        try:
            found = handoff.read(self._path, self._key)
        except OSError:
            return None
        except handoff.DamagedError as error:
            raise DiscardedError(str(error)) from error
        try:
            return self._restored(found)
        except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
            # the seal is intact, but `save` did not write it
            raise DiscardedError(f"it is not a checkpoint: {type(error).__name__}: {error}") from error

    def _restored(self, found: handoff.Handoff) -> SavedCheckpoint:
        metadata = found.header.metadata
        before = json.loads(metadata.get("environment") or metadata["circumstances"])
        for name, now in self._environment.items():
            if before.get(name) != now:
                raise DiscardedError(f"it was saved with {_difference(name, before.get(name), now)}")
        tensors = load_tensors(found.data)
        rng.restore(_under(RANDOM, tensors), self.device)
        # copies have torch's own alignment, which bit-exact results require
        state: Any = {name: tensor.clone() for name, tensor in _under(STATE, tensors).items()}
        if "values" in metadata:
            state = Bundled(state, json.loads(metadata["values"]))
        elif set(state) == {SINGLE}:
            state = state[SINGLE]
        saved = Saved(int(metadata["step"]), state)
        return SavedCheckpoint(saved, int(metadata["steps"]), float(metadata.get("seconds", 0.0)))

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Snapshot:
    """A copy of a stage's state, which the stage may overwrite meanwhile."""

    tensors: Mapping[str, torch.Tensor]
    values: str | None = None
    """The values of a :class:`~runner.api.Bundled` as JSON; None for other states."""


def snapshot(state: Any) -> Snapshot:
    """A copy of a state: a tensor, a dict of tensors, or a bundle.

    Raises:
        TypeError: it is none of these.

    """
    tensors = state.tensors if isinstance(state, Bundled) else state
    tensors = {SINGLE: tensors} if isinstance(tensors, torch.Tensor) else tensors
    if not isinstance(tensors, dict) or not all(
        isinstance(value, torch.Tensor) for value in tensors.values()
    ):
        raise TypeError("item.step takes a tensor, a dict of tensors, or a Bundled, as the state")
    copies = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    return Snapshot(copies, json.dumps(state.values) if isinstance(state, Bundled) else None)


def _under(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _difference(name: str, before: Any, now: Any) -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        part = next(part for part in {**before, **now} if before.get(part) != now.get(part))
        return f"{part} {before.get(part)}, and this is {now.get(part)}"
    return f"{name} {before}, and this is {now}"
