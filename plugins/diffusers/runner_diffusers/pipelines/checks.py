"""Checks of an item's parameters against the pipeline and those of earlier stages; nothing is loaded."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from runner.api import Problem
from runner_diffusers import tiling
from runner_diffusers.media import formats
from runner_diffusers.media.errors import MediaError
from runner_diffusers.media.inputs import look_at_files
from runner_diffusers.pipelines import prologue, sounds, source
from runner_diffusers.pipelines.evaluate import UNKNOWN, Known
from runner_diffusers.pipelines.params import PipelineParams
from runner_diffusers.pipelines.signature import FileKind, defaults, keywords
from runner_diffusers.vae_tiles import is_vae

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.api import Facts
    from runner_diffusers.pipelines.source import SourceClass

NEEDED = ((re.compile(r"Img2Img|Inpaint|Layered"), "image"), (re.compile(r"Inpaint"), "mask_image"))
"""Pictures that pipelines cannot do without though their signature has a default, by the pipeline's name."""
ABSENT = re.compile(r"_embeds|has to be of type|cannot be undefined|is required")
"""Messages about a keyword that is not given; they go on about tensors, which no manifest can give."""
OUTPUT = ("output_type", "return_dict", "generator")
"""Keywords that the stages set."""
GUIDED = "do_classifier_free_guidance"
OF_THE_FILE = ("fps",)
"""Parameters of the decode stage, for the file that it writes: pipelines may have keywords of that name."""


def encode(params: PipelineParams, facts: Facts) -> Iterator[Problem]:
    """Report files that are not what the pipeline takes."""
    for keyword in params.file_keywords():
        value = getattr(params, keyword.attribute, None)
        if value is not None:
            try:
                looks = look_at_files(keyword, value)
            except MediaError as error:
                yield Problem(str(error), keyword.name)
                continue
            if keyword.file is FileKind.SOUND:
                for path, look in looks.items():
                    yield from sounds.problems(keyword.name, path, look, facts.configs)


def denoise(params: PipelineParams, facts: Facts) -> Iterator[Problem]:
    """Report what the pipeline itself would refuse or ignore, and what other stages have otherwise."""
    yield from _differences(params, facts)
    cls = source.find(params.pipeline)
    if cls is not None:
        missing = [*_missing_pictures(cls, params), *_without_adapter(cls, params)]
        yield from missing
        names = {problem.parameter for problem in missing}
        yield from (problem for problem in _findings(cls, params, facts) if problem.parameter not in names)


def decode(params: PipelineParams, facts: Facts) -> Iterator[Problem]:
    """Report a format or tiles that cannot be, and files that other stages have otherwise."""
    yield from _differences(params, facts, but=OF_THE_FILE)
    wanted: Any = params
    if reason := formats.missing(wanted.format):
        yield Problem(reason, "format")
    for config in facts.configs.values():
        named = config.get("_class_name")
        if isinstance(named, str) and is_vae(named):
            for wrong in tiling.problems(named, config, wanted.tiling, getattr(wanted, "temporal", "auto")):
                yield Problem(str(wrong), wrong.parameter)


def _differences(params: PipelineParams, facts: Facts, but: tuple[str, ...] = ()) -> Iterator[Problem]:
    known = {*but}
    for upstream in facts.upstream.values():
        if not isinstance(upstream, PipelineParams) or upstream.pipeline != params.pipeline:
            continue
        shared = type(params).model_fields.keys() & type(upstream).model_fields.keys()
        for attribute in sorted(shared - known):
            own, other = getattr(params, attribute), getattr(upstream, attribute)
            if own != other:
                known.add(attribute)
                name = type(params).model_fields[attribute].alias or attribute
                yield Problem(
                    f"{name} is {_shown(own)} here, and {_shown(other)} in the stage before: set it in "
                    "[with] or for the item, so that all stages have it",
                    name,
                )


def _missing_pictures(cls: SourceClass, params: PipelineParams) -> Iterator[Problem]:
    files = {one.name for one in keywords(cls) if one.file}
    for pipelines, name in NEEDED:
        if pipelines.search(cls.name) and name in files and getattr(params, name) is None:
            yield Problem(f'{name} is missing: {cls.name} needs one, such as {name} = "picture.png"', name)
    pictures = getattr(params, "image", None)
    if cls.name == "GlmImagePipeline" and isinstance(pictures, list) and len(pictures) > 1:
        yield Problem("image: this pipeline encodes further pictures while it denoises; give one", "image")


def _without_adapter(cls: SourceClass, params: PipelineParams) -> Iterator[Problem]:
    for one in keywords(cls):
        if "ip_adapter" in one.name and getattr(params, one.attribute, None) is not None:
            yield Problem(
                f"{one.name}: IP adapters are weights that are loaded into a pipeline from files of their "
                "own, which the stages do not do; leave it out",
                one.name,
            )


def _findings(cls: SourceClass, params: PipelineParams, facts: Facts) -> Iterator[Problem]:
    offered = {one.name: one for one in keywords(cls)}
    arguments = dict(defaults(cls)) | dict.fromkeys(OUTPUT, UNKNOWN)
    for name, keyword in offered.items():
        value = getattr(params, keyword.attribute, keyword.default)
        arguments[name] = _as_file(value) if keyword.file else value
    found, pipeline = prologue.findings(cls, arguments, facts.configs, params.init_values)
    for one in found:
        about = [name for name in one.about if name in offered]
        own = [name for name in about if offered[name].attribute in params.model_fields_set]
        name = next(iter([*own, *about]), "")
        if not one.is_warning and name and arguments[name] is None and ABSENT.search(one.message):
            yield Problem(f"{name} is missing: {cls.name} needs it", name)
        elif not one.is_warning or own:
            yield Problem(f"{cls.name}: {one.message}", name, warning=one.is_warning)
    unguided = prologue.is_true_property(cls, GUIDED, pipeline) is False
    if unguided and getattr(params, "negative_prompt", None) and "negative_prompt" in params.model_fields_set:
        yield Problem("negative_prompt changes nothing: the guidance is off", "negative_prompt", warning=True)


def _as_file(value: Any) -> Any:
    if isinstance(value, list):
        return [Known() for _ in value]
    return None if value is None else Known()


def _shown(value: Any) -> str:
    return "not set" if value is None else repr(value)
