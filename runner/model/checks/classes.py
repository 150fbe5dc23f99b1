"""Compares the classes that a model's files name with those that the stages load."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from runner.model.checks.formats import LIBRARIES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from runner.api import Component, Stage
    from runner.model.shapes import ComponentShapes

ANY = "*"
# base classes that transformers' files may name instead of a specific tokenizer
_GENERIC = {"PreTrainedTokenizer", "TokenizersBackend", "PythonBackend", "SentencePieceBackend"}
_WHOLE = re.compile(
    r"(?P<family>.+?)(?:Model|ForPreTraining|ForConditionalGeneration|ForCausalLM|(?:With)?LMHeadModel)"
)


def class_problems(shapes: ComponentShapes, index: Mapping[str, Any]) -> Iterator[str]:
    """An error message if the component's files or its entry in ``model_index.json`` name another class.

    Only classes of diffusers and transformers are checked: a plugin's own may read files of any class.
    """
    component = shapes.component
    library, _, cls = component.cls.partition(":")
    if library.partition(".")[0] not in LIBRARIES or ANY in component.accepts or _is_auto(component):
        return
    for where, named in _named(shapes, index):
        if named and not any(_is_for(name, cls, component) for name in named):
            yield (
                f"component '{component.name}' is of class {' or '.join(named)}, by its {where}, and the "
                f"stage loads {cls}: name a model whose {component.name} is of that class, or use a stage "
                f"that is made for {named[0]}"
            )
            return


def pipeline_problem(stage: Stage, index: Mapping[str, Any]) -> str:
    """An error message if the stage does not support the model's pipeline class, else empty."""
    named = index.get("_class_name")
    if not stage.pipelines or not isinstance(named, str) or named in stage.pipelines:
        return ""
    return (
        f"the model is of a {named}, by its model_index.json, and {stage.name} is made for "
        f"{' and '.join(stage.pipelines)}: name such a model, or use stages that are made for {named}"
    )


def architectures(folder: Path) -> list[str]:
    """The ``architectures`` in a component's ``config.json``; empty if there are none."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return []
    return _strings(config.get("architectures")) if isinstance(config, dict) else []


def is_whole_of(name: str, cls: str) -> bool:
    """Whether a class of transformers is, by its name, a complete model of which ``cls`` is a part.

    ``T5ForConditionalGeneration`` contains ``T5EncoderModel``, ``CLIPModel`` contains ``CLIPTextModel``.
    """
    match = _WHOLE.fullmatch(name)
    return match is not None and cls.startswith(match["family"]) and not cls.startswith(name)


def _named(shapes: ComponentShapes, index: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """The files that may name the component's class, and the names in each.

    One folder may hold a model with its tokenizer: each is checked against its own config.
    """
    others = {} if shapes.config and shapes.tensors else shapes.other_configs
    if shapes.config and not (others and "Tokenizer" in shapes.component.cls):
        yield "config.json", _strings(shapes.config.get("_class_name"))
        yield "config.json", _strings(shapes.config.get("architectures"))
    for name, config in others.items():
        yield name, _strings(config.get("_class_name")) + _strings(config.get("tokenizer_class"))
    entry = index.get(shapes.component.path)
    if isinstance(entry, list) and len(entry) == 2:
        yield "entry in model_index.json", _strings(entry[1])


def _is_for(name: str, cls: str, component: Component) -> bool:
    """Whether files of the class ``name`` can be loaded as ``cls``."""
    if name in (cls, *component.accepts):
        return True
    if component.cls.startswith("transformers") and is_whole_of(name, cls):
        return True
    plain = name.removesuffix("Fast")
    return plain == cls.removesuffix("Fast") or (plain in _GENERIC and "Tokenizer" in cls)


def _is_auto(component: Component) -> bool:
    """Whether the class loads files of any class: ``Auto...`` of transformers, or a base class."""
    library, _, cls = component.cls.partition(":")
    return (
        cls == "AutoModel"
        or cls.removesuffix("Fast") in _GENERIC
        or (library.startswith("transformers") and cls.startswith("Auto"))
    )


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []
