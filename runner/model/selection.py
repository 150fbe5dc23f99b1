"""Selects the files that a component is loaded from: one layout of its weights, configs and tokenizer files.

A folder may hold the same weights several times: as one file and in shards, in several precisions
(variants), or under the names of other programs. Selected, and so planned, fetched, hashed and loaded, is
what the component's library loads: the shards that an index lists, else the file with the library's name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatch, fnmatchcase
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol

from runner.api import Component
from runner.errors import ModelError
from runner.manifest.problems import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from runner.files.header import Header

WEIGHTS = ".safetensors"
GGUF = ".gguf"
CONFIG = "config.json"
INDEX = "model_index.json"
BESIDE_WEIGHTS = ("*.json", "*.txt", "*.model")
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".msgpack", ".h5")
STEMS = {"diffusers": ("diffusion_pytorch_model", "model"), "transformers": ("model",)}
"""Stems of weight files, by the package of the component's class."""

# classes that have no weights, by a part of their names: a repository may hold them beside a model
_WITHOUT_WEIGHTS = {
    "Tokenizer": "tokenizer_config.json",
    "Processor": "preprocessor_config.json",
    "FeatureExtractor": "preprocessor_config.json",
    "Scheduler": "scheduler_config.json",
}

_PART = r"-\d+-of-\d+"
# older versions of the libraries put the variant after the number: model-00001-of-00002.fp16.safetensors
_WEIGHTS = re.compile(rf"(?P<stem>[^.]+?)(?P<part>{_PART})?(\.(?P<variant>[^.]+?)({_PART})?)?\.safetensors")
_INDEX = re.compile(r"(?P<stem>[^.]+)\.safetensors(\.(?P<older>[^.]+))?\.index(\.(?P<variant>[^.]+))?\.json")
_ANY_INDEX = re.compile(r".+\.index(\.[^.]+)?\.json")


class Contents(Protocol):
    """Reads files of a component's folder, on disk or on the hub, by their names in the folder."""

    @property
    def title(self) -> str:
        """The name of the folder in messages."""

    def table(self, name: str) -> Mapping[str, Any]:
        """The content of a JSON file."""

    def header(self, name: str) -> Header:
        """The header of a weight file."""


@dataclass(frozen=True)
class Selection:
    """The files that a component is loaded from: sorted paths relative to the model's folder."""

    names: tuple[str, ...]
    variant: str | None = None
    """The variant of the weights; None for plain files, also if the requested variant is absent."""
    index: str | None = None
    """The name of the index that lists the shards."""


@dataclass(frozen=True)
class SingleFile(Component):
    """A component that is one named file of a source; other files in its ``folder`` are ignored."""

    file: str = ""


def select(
    names: Iterable[str], component: Component, contents: Contents, variant: str | None = None
) -> Selection:
    """Select from a model's files, given as relative paths; prefers ``variant`` to plain files.

    Raises:
        ModelError: the weights are missing, pickled, incomplete or ambiguous.

    """
    own = sorted(PurePosixPath(name).name for name in files_of(component, names))
    if isinstance(component, SingleFile):
        if component.file not in own:
            hint = did_you_mean(component.file, [name for name in own if name.endswith(WEIGHTS)])
            raise ModelError(f"{contents.title} has no file {component.file}{hint}")
        return Selection((path_of(component, component.file),))
    folder = _Folder(own, component, contents)
    found = folder.select_config(variant) if component.config_only else folder.select(variant)
    return Selection(tuple(path_of(component, n) for n in found.names), found.variant, found.index)


def path_of(component: Component, name: str) -> str:
    """The path in the model of a file in the component's folder."""
    return str(PurePosixPath(component.path) / name)


def files_of(component: Component, names: Iterable[str]) -> list[str]:
    """The files in the component's folder, among paths in the model."""
    here = PurePosixPath(component.path)
    return [name for name in names if PurePosixPath(name).parent == here]


def variants(names: Iterable[str]) -> list[str]:
    """The variants among weight files, sorted."""
    found = (_WEIGHTS.fullmatch(PurePosixPath(name).name) for name in names)
    return sorted({match["variant"] for match in found if match and match["variant"]})


@dataclass(frozen=True)
class _Folder:
    """A component's folder: the names of its files, without the folder."""

    names: Collection[str]
    component: Component
    contents: Contents

    @property
    def library(self) -> str:
        return re.split("[.:]", self.component.cls, maxsplit=1)[0]

    def select(self, variant: str | None) -> Selection:
        if self._is_without_weights:
            return Selection(tuple(sorted(set(self._beside()))))
        weights = self._weights(variant) or (self._weights(None) if variant else None) or self._named()
        chosen = weights or Selection(())
        beside = self._beside()
        if weights is None:
            self._check_absence(beside)
        index = [chosen.index] if chosen.index else []
        return Selection(tuple(sorted({*beside, *chosen.names, *index})), chosen.variant, chosen.index)

    def _beside(self) -> list[str]:
        """Files that are loaded beside the weights."""
        beside = [
            name
            for name in self.names
            if any(fnmatch(name, kind) for kind in BESIDE_WEIGHTS) and not _ANY_INDEX.fullmatch(name)
        ]
        return beside + [n for n in self.names if any(fnmatch(n, kind) for kind in self.component.files)]

    @property
    def _is_without_weights(self) -> bool:
        """Whether it is a tokenizer, processor or scheduler: weights beside it are another component's."""
        cls = self.component.cls.partition(":")[2]
        return any(word in cls and config in self.names for word, config in _WITHOUT_WEIGHTS.items())

    def select_config(self, variant: str | None) -> Selection:
        """The config, and weight files with tensors that match ``Component.buffers``."""
        config = (CONFIG,) if CONFIG in self.names else ()
        chosen = self._weights(variant) or self._weights(None) if self.component.buffers else None
        if chosen is None:
            return Selection(config)
        weights = [
            name for name in chosen.names if any(map(self._is_buffer, self.contents.header(name).tensors))
        ]
        return Selection((*config, *weights), chosen.variant)

    def _is_buffer(self, tensor: str) -> bool:
        return any(fnmatchcase(tensor, pattern) for pattern in self.component.buffers)

    def _weights(self, variant: str | None) -> Selection | None:
        """The weights of a variant, or plain ones for None; None if there are none."""
        indexes = {m["stem"]: m[0] for m in map(_INDEX.fullmatch, self.names) if m and _is_of(m, variant)}
        files = [m for m in map(_WEIGHTS.fullmatch, self.names) if m and m["variant"] == variant]
        for stem in STEMS.get(self.library, ()):
            whole = f"{stem}.{variant}{WEIGHTS}" if variant else f"{stem}{WEIGHTS}"
            # for a variant, transformers always prefers the single file to shards
            whole_first = whole in self.names and variant and self.library == "transformers"
            if stem in indexes and not whole_first:
                return Selection(self._shards(indexes[stem]), variant, indexes[stem])
            if whole in self.names:
                return Selection((whole,), variant)
        if self.library in STEMS:
            return None
        if len(indexes) > 1:
            raise ModelError(f"{self._title} has two indexes, {_list(indexes.values())}: remove one")
        for index in indexes.values():
            return Selection(self._shards(index), variant, index)
        return Selection(self._distinct([match[0] for match in files]), variant) if files else None

    def _shards(self, index: str) -> tuple[str, ...]:
        """The shards that an index lists; raises a ModelError if some are missing."""
        named = self.contents.table(index).get("weight_map")
        if not isinstance(named, dict) or not named or not all(isinstance(s, str) for s in named.values()):
            raise ModelError(f"{self._title}: {index} is damaged: it has no weight_map; fetch it again")
        missing = sorted(set(named.values()).difference(self.names))
        if missing:
            raise ModelError(
                f"{self._title} is incomplete: {index} names {missing[0]}, which is not there; fetch it again"
            )
        return tuple(sorted(set(named.values())))

    def _distinct(self, files: list[str]) -> tuple[str, ...]:
        """Weight files of a class of an unknown library, which may have any names.

        All, if no tensor is in two of them; else the one with a usual name.
        """
        owners: dict[str, str] = {}
        for file in files if len(files) > 1 else ():
            for tensor in self.contents.header(file).tensors:
                if tensor in owners:
                    usual = [f for f in files if f.removesuffix(WEIGHTS) in STEMS["diffusers"]]
                    if len(usual) == 1:
                        return (usual[0],)
                    raise ModelError(
                        f"{self._title} has '{tensor}' both in {owners[tensor]} and in {file}, and no index "
                        "says which counts: leave one layout of the weights there"
                    )
                owners[tensor] = file
        return tuple(files)

    def _named(self) -> Selection | None:
        """The weights that transformers' ``config.json`` names, if it does."""
        if self.library != "transformers" or CONFIG not in self.names:
            return None
        name = self.contents.table(CONFIG).get("transformers_weights")
        if not isinstance(name, str) or name not in self.names:
            return None
        if _INDEX.fullmatch(name):
            return Selection(self._shards(name), None, name)
        return Selection((name,))

    def _check_absence(self, beside: Collection[str]) -> None:
        """Check that a folder without weights is that of a tokenizer or scheduler.

        Raises:
            ModelError: it should have weights, or is empty.

        """
        others = variants(self.names)
        files = [name for name in self.names if name.endswith(WEIGHTS) and name not in beside]
        pickles = [name for name in self.names if name.endswith(PICKLES)]
        if others and not any(not variants([name]) for name in files):
            raise ModelError(
                f"{self._title} has weights only as variant {_list(map(repr, others))}: "
                f'write `variant = "{others[0]}"` under `source`'
            )
        if files:
            stem = STEMS.get(self.library, ("model",))[0]
            raise ModelError(
                f"{self._title} has {files[0]}, and '{self.component.cls}' loads {stem}{WEIGHTS}, or the "
                f"shards that {stem}{WEIGHTS}.index.json names: rename the file, or save the model anew"
            )
        if pickles:
            raise ModelError(
                f"{self._title} holds pickled weights only ({pickles[0]}), which can run code when loaded; "
                "get the model as safetensors, or save it anew with safe_serialization=True"
            )
        if not beside:
            raise ModelError(f"{self._title} holds no file that '{self.component.name}' could be loaded from")
        if CONFIG in beside:
            raise ModelError(
                f"{self._title} has a {CONFIG} and no weights (*{WEIGHTS}); fetch the model again"
            )

    @property
    def _title(self) -> str:
        return self.contents.title


def _is_of(index: re.Match[str], variant: str | None) -> bool:
    return (index["variant"] or index["older"]) == variant


def _list(words: Iterable[str]) -> str:
    return " and ".join(words)
