"""The components that a ``model_index.json`` lists, restricted to classes of diffusers and transformers.

The file comes from a stranger. It chooses among the classes that these two libraries load as components of
pipelines, and nothing else: no other library, no module by its dotted name, no function, no Python file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runner.api import UnsupportedModelError
from runner_diffusers.pipelines import source

if TYPE_CHECKING:
    from collections.abc import Mapping

LISTED_PAIR = 2  # [library, class]
CLASS_NAME = re.compile(r"[A-Z][A-Za-z0-9_]*")
OBJECTS = {"SchedulerMixin", "BaseGuidance", "ConfigMixin", "PreTrainedTokenizer", "PreTrainedTokenizerFast"}
"""Base classes of components without weights."""
WEIGHTS = re.compile(r"(Legacy)?ModelMixin|\w*PreTrainedModel|(torch\.)?nn\.Module")
"""Base classes of models."""

FILES = re.compile(
    r"(modeling|tokenization|processing|image_processing|video_processing|feature_extraction)_\w+\.py"
)
"""Files of transformers with classes that pipelines have as components."""
WITHOUT_FILE = ("PreTrainedTokenizerFast", "PreTrainedTokenizer")  # transformers has them in its root
UNEXPORTED = {"T5GemmaEncoder": "diffusers.pipelines.prx"}
"""Classes that diffusers itself puts into transformers, with the folder that has them."""
CLASSES_WITHOUT_WEIGHTS = re.compile(r"(Tokenizer|Processor|FeatureExtractor)(Fast|Pil)?$")
"""Names of transformers' classes that have no weights."""


@dataclass(frozen=True)
class Entry:
    """A component's class: ``"diffusers:AutoencoderKL"``, ``"diffusers.pipelines.ltx2:LTX2Vocoder"``."""

    cls: str
    has_weights: bool

    @property
    def name(self) -> str:
        """The class's own name."""
        return self.cls.partition(":")[2]

    @property
    def library(self) -> str:
        """How an index names its module: ``"ltx2"`` for a folder of diffusers' pipelines."""
        return self.cls.partition(":")[0].rpartition(".")[2]

    @property
    def source(self) -> source.SourceClass | None:
        """The class's source; None for those of transformers."""
        module, _, name = self.cls.partition(":")
        return source.find(name, module) if module.partition(".")[0] == source.DIFFUSERS else None


def entries(index: Mapping[str, Any]) -> dict[str, Entry | None]:
    """The components by name; None for those that the model leaves out (``[null, null]``)."""
    found: dict[str, Entry | None] = {}
    for name, listed in index.items():
        if name.startswith("_") or not isinstance(listed, list) or not _is_pair(listed):
            continue
        if not name.isidentifier():
            raise UnsupportedModelError(f"model_index.json names a component {name!r}: that is no name")
        found[name] = None if listed[1] is None else entry(name, *listed)
    return found


def entry(name: str, library: Any, cls: str) -> Entry:
    """The class that ``[library, cls]`` stands for; others than those of the two libraries are refused."""
    where = f"model_index.json has [{library!r}, {cls!r}] for {name}"
    if not isinstance(library, str) or not CLASS_NAME.fullmatch(cls):
        raise UnsupportedModelError(f"{where}: expected the name of a library, and of a class in it")
    if library == "transformers":
        return _of_transformers(where, cls)
    module = library if library == source.DIFFUSERS else source.pipeline_folder(library)
    if module is None:
        raise UnsupportedModelError(
            f"{where}: components are of diffusers, transformers or a folder of diffusers' pipelines; "
            "code that a model brings along, or of other libraries, is not run"
        )
    found = source.find(cls, module)
    if found is None:
        raise UnsupportedModelError(
            f"{where}: the installed diffusers has no such class; a newer version may"
        )
    ancestors = source.ancestors(found)
    if "DiffusionPipeline" in ancestors or not any(
        base in OBJECTS or WEIGHTS.fullmatch(base) for base in ancestors
    ):
        raise UnsupportedModelError(f"{where}: that is not a class of components")
    return Entry(f"{module}:{cls}", any(WEIGHTS.fullmatch(base) for base in ancestors))


def _of_transformers(where: str, cls: str) -> Entry:
    if cls in UNEXPORTED:
        return Entry(f"{UNEXPORTED[cls]}:{cls}", has_weights=True)
    file = source.transformers_file(cls)
    if file is None:
        raise UnsupportedModelError(
            f"{where}: the installed transformers has no such class; another version may"
        )
    if cls not in WITHOUT_FILE and not FILES.fullmatch(file.name):
        raise UnsupportedModelError(f"{where}: that is not a class of components")
    return Entry(f"transformers:{cls}", not CLASSES_WITHOUT_WEIGHTS.search(cls))


def _is_pair(listed: list[Any]) -> bool:
    """Whether it is ``[library, class]``; other lists are values of the pipeline's ``__init__``."""
    return len(listed) == LISTED_PAIR and (listed == [None, None] or isinstance(listed[1], str))
