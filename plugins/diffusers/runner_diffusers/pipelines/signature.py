"""The keywords of a pipeline's `__call__`: their types, defaults and descriptions, from its source."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, reduce
from operator import or_
from typing import TYPE_CHECKING, Any, Literal

from pydantic import FiniteFloat, JsonValue

from runner.api import InputFile, InputFolder
from runner_diffusers.media.formats import Kind
from runner_diffusers.pipelines import calls, source
from runner_diffusers.pipelines.evaluate import UNKNOWN, evaluate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runner_diffusers.pipelines.source import SourceClass

NOT_OFFERED = re.compile(
    r".*(latents|embeds|embedding|embeddings|attention_mask)(_.*)?|return_dict|output_type|seed|fonts|audio_file"
    r"|.*generator|callback.*|batch_size|num_(images|videos|waveforms|designs)_per_prompt"
)
"""Keywords that runner sets, that belong to one stage's results, or that name files unseen by keys."""

PICTURES = re.compile(r"\bPipelineImageInput\b|\bPipelineMaskInput\b|\bImage\.Image\b")
CLIP = re.compile(r"video|frames")
TENSOR_FILES = re.compile(
    r"((control|mask)_)?video|((ref|last|mask)_)?image|((src|reference)_)?audio|initial_audio_waveforms"
)
"""Keywords annotated as tensors that are made from files."""


CORRECTED = {"initial_audio_sampling_rate": int}
"""Keywords whose annotation is wrong."""


class FileKind(StrEnum):
    """What a keyword's file holds."""

    PICTURE = "picture"
    TRANSPARENT = "transparent"
    """A picture whose transparency the pipeline takes too."""
    CLIP = "clip"
    SOUND = "sound"


@dataclass(frozen=True)
class Keyword:
    """A keyword of a pipeline's `__call__` that a manifest can set."""

    name: str
    type: Any
    """For pydantic; without None."""
    default: Any
    """As in the signature; None where it cannot be evaluated."""
    required: bool
    file: FileKind | None
    """What it is a file of; None for plain values."""
    description: str

    @property
    def attribute(self) -> str:
        """Its name as an attribute of parameters: those of pydantic begin with no underscore."""
        return self.name.lstrip("_")


@cache
def keywords(cls: SourceClass) -> tuple[Keyword, ...]:
    """The keywords that a manifest can set, in the signature's order."""
    described = _descriptions(cls)
    found = []
    for name, annotation, default in _parameters(cls):
        if NOT_OFFERED.fullmatch(name):
            continue
        value = _default(default, cls) if default is not None else None
        file = _file_kind(name, annotation)
        if file is FileKind.PICTURE and cls.name in LAYERED:
            file = FileKind.TRANSPARENT
        kind = _file_type(annotation, file) if file else _value_type(name, annotation, value)
        if kind is not None:
            found.append(Keyword(name, kind, value, default is None, file, described.get(name, "")))
    return tuple(found)


@cache
def defaults(cls: SourceClass) -> Mapping[str, Any]:
    """The default of each keyword whose default can be evaluated, whether a manifest can set it or not."""
    return {name: _default(node, cls) for name, _, node in _parameters(cls) if node is not None}


@cache
def tensors_needed(cls: SourceClass) -> tuple[str, ...]:
    """Keywords without a default that no manifest can set: embeddings and latents made by other pipelines."""
    offered = {keyword.name for keyword in keywords(cls)}
    given = {"generator", "latents"}
    return tuple(
        name for name, _, default in _parameters(cls) if default is None and name not in offered | given
    )


@cache
def made(cls: SourceClass) -> frozenset[Kind]:
    """The parts of what a pipeline makes, by the fields of the output that it returns; none are tensors."""
    if cls.name in LAYERED:
        return frozenset({Kind.LAYERS})
    call = source.method(cls, calls.CALL)
    fields = set()
    for node in ast.walk(call) if call is not None else ():
        if isinstance(node, ast.Return) and isinstance(node.value, ast.Call):
            name = ast.unparse(node.value.func)
            fields |= {str(keyword.arg) for keyword in node.value.keywords}
            fields |= {"images"} if name == "ImagePipelineOutput" else set()
    if "frames" in fields:
        return frozenset({Kind.CLIP, Kind.SOUND} if "audio" in fields else {Kind.CLIP})
    if "audios" in fields:
        return frozenset({Kind.SOUND})
    return frozenset({Kind.PICTURE}) if fields & PICTURE_FIELDS else frozenset()


PICTURE_FIELDS = {"images", "image", "rgb", "prediction"}
LAYERED = ("QwenImageLayeredPipeline",)
"""Pipelines that take a picture with its transparency, and return it as a stack of layers."""


def _parameters(cls: SourceClass) -> Iterator[tuple[str, ast.expr | None, ast.expr | None]]:
    """Name, annotation and default of each parameter of `__call__`."""
    call = source.method(cls, calls.CALL)
    if call is None:
        return
    positional = [*call.args.posonlyargs, *call.args.args]
    defaults = [None] * (len(positional) - len(call.args.defaults)) + list(call.args.defaults)
    for arg, default in zip(positional[1:], defaults[1:], strict=True):
        yield arg.arg, arg.annotation, default
    for arg, default in zip(call.args.kwonlyargs, call.args.kw_defaults, strict=True):
        yield arg.arg, arg.annotation, default


def _default(node: ast.expr, cls: SourceClass) -> Any:
    """The value of a default; names in it are constants of the module."""
    names = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
    values = {name: source.constant(name, cls.module) for name in names}
    value = evaluate(node, {name: value for name, value in values.items() if value is not None})
    return None if value is UNKNOWN else value


def _file_kind(name: str, annotation: ast.expr | None) -> FileKind | None:
    text = ast.unparse(annotation) if annotation is not None else ""
    if not PICTURES.search(text) and not ("Tensor" in text and TENSOR_FILES.fullmatch(name)):
        return None
    if "audio" in name:
        return FileKind.SOUND
    is_clip = CLIP.search(name) or (name == "mask" and "list[PipelineImageInput]" in text)
    return FileKind.CLIP if is_clip else FileKind.PICTURE


def _file_type(annotation: ast.expr | None, kind: FileKind) -> Any:
    """A file; or a list of them where the pipeline takes several pictures, or a clip's frames one by one."""
    text = ast.unparse(annotation) if annotation is not None else ""
    file = InputFolder if kind is FileKind.CLIP else InputFile
    several = re.search(r"\b[lL]ist\[|PipelineImageInput", text) is not None or kind is FileKind.CLIP
    return file | list[InputFile] if several and kind is not FileKind.SOUND else file


def _value_type(name: str, annotation: ast.expr | None, default: Any) -> Any:
    if name in CORRECTED:
        return CORRECTED[name]
    if annotation is None:
        return type(default) if isinstance(default, bool | int | float | str) else None
    return type_of(annotation)


PLAIN: dict[str, Any] = {
    "str": str,
    "int": int,
    "float": FiniteFloat,
    "bool": bool,
    "dict": dict[str, JsonValue],
    "Dict": dict[str, JsonValue],
    "Any": JsonValue,
}


def type_of(node: ast.expr) -> Any:
    """The type of an annotation as far as TOML can hold its values; None if it cannot hold any."""
    if isinstance(node, ast.Name):
        return PLAIN.get(node.id)
    if isinstance(node, ast.BinOp):
        return _union([node.left, node.right])
    if not isinstance(node, ast.Subscript):
        return None
    name, inner = ast.unparse(node.value).rpartition(".")[2], node.slice
    parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
    if name in ("Optional", "Union"):
        return _union(parts)
    if name == "Literal":
        return Literal[tuple(part.value for part in parts if isinstance(part, ast.Constant))]
    if name in ("dict", "Dict"):
        return dict[str, JsonValue]
    types = [type_of(part) for part in parts if not _is_ellipsis(part)]
    if None in types or not types:
        return None
    if name in ("list", "List"):
        return list[types[0]]  # type: ignore[valid-type]
    if name in ("tuple", "Tuple"):  # a tuple[int] is one of any length, in what pipelines write
        return tuple[(*types, ...)] if len(types) == 1 else tuple[tuple(types)]  # type: ignore[misc, valid-type]
    return None


def _union(nodes: list[ast.expr]) -> Any:
    """The members that TOML can hold; of a text or a list of texts, one text, since an item is one result."""
    members = [kind for node in nodes if (kind := type_of(node)) is not None]
    if str in members:
        members = [kind for kind in members if kind != list[str]]
    return reduce(or_, members) if members else None


def _is_ellipsis(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is ...


ARGUMENT = re.compile(r"^(?P<indent> *)(?P<name>\w+)(:? *\(.*?\)?)? *:\s*(?P<rest>.*)$")


def _descriptions(cls: SourceClass) -> dict[str, str]:
    """The first sentence about each keyword in the docstring of `__call__`."""
    call = source.method(cls, calls.CALL)
    text = ast.get_docstring(call) if call is not None else None
    found: dict[str, list[str]] = {}
    current: list[str] | None = None
    names = {name for name, _, _ in _parameters(cls)}
    for line in (text or "").splitlines():
        match = ARGUMENT.match(line)
        if match and match["name"] in names:
            current = found.setdefault(match["name"], [match["rest"]] if match["rest"] else [])
        elif current is not None and line.startswith("     "):
            current.append(line.strip())
        elif line.strip():
            current = None
    return {name: _sentence(" ".join(lines)) for name, lines in found.items()}


def _sentence(text: str) -> str:
    text = re.sub(r"^\([^)]*\): *", "", text)
    plain = re.sub(r"\[`?~?([^\]`]*)`?\](\([^)]*\))?", r"\1", text).replace("`", "")
    first = re.split(r"(?<=[a-z0-9)])\.\s", f"{plain} ", maxsplit=1)[0].strip().rstrip(".")
    return first[:1].lower() + first[1:] if first[1:2].islower() else first
