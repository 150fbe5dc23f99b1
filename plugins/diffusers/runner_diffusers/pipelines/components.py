"""The components of each stage, for the pipeline of a model; the engine asks before it loads anything."""

from __future__ import annotations

import ast
from difflib import get_close_matches
from functools import cache
from typing import TYPE_CHECKING, Any

from runner.api import Component, UnsupportedModelError
from runner_diffusers.pipelines import calls, source
from runner_diffusers.pipelines.division import encodes_pictures, reason_against
from runner_diffusers.pipelines.entries import Entry, entries, entry
from runner_diffusers.pipelines.roles import Role, declared_roles, role_of
from runner_diffusers.pipelines.signature import tensors_needed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.api import ModelFacts
    from runner_diffusers.pipelines.source import SourceClass

IN_EVERY_STAGE = ("SchedulerMixin", "BaseGuidance")
"""Base classes of objects without weights that the pipeline uses around its components' calls."""
PROCESSORS = ("feature_extractor", "image_processor")
"""Objects without weights, by name, that are in every stage too: they prepare pictures and check results."""


def encode(model: ModelFacts) -> tuple[Component, ...]:
    """The text and image encoders with weights, and the VAE where the pipeline encodes pictures with it."""
    return _components(model, Role.ENCODE)


def denoise(model: ModelFacts) -> tuple[Component, ...]:
    """The transformers, UNets and ControlNets with weights."""
    return _components(model, Role.DENOISE)


def decode(model: ModelFacts) -> tuple[Component, ...]:
    """The VAE, vocoder and safety checker with weights."""
    return _components(model, Role.DECODE)


def pipeline_class(model: ModelFacts) -> SourceClass:
    """The source of the model's pipeline, if it is one of diffusers' that can be split."""
    name = model.pipeline
    if not name:
        raise UnsupportedModelError(
            "this is no diffusers pipeline: it has no model_index.json that names one (_class_name)"
        )
    found = source.find(name) if name.isidentifier() else None
    if found is None or not found.module.startswith("diffusers.pipelines.") or not source.is_pipeline(found):
        close = get_close_matches(name, source.pipeline_names(), n=1)
        hint = f"; did you mean {close[0]}?" if close else "; a newer version may"
        raise UnsupportedModelError(f"the installed diffusers has no pipeline {name}{hint}")
    if reason := reason_against(found):
        raise UnsupportedModelError(f"{name} cannot be split into encode, denoise and decode: {reason}")
    if tensors := tensors_needed(found):
        raise UnsupportedModelError(
            f"{name} needs {', '.join(tensors)}: tensors of another pipeline, which no manifest can hold"
        )
    return found


def init_values(model: ModelFacts) -> dict[str, Any]:
    """Values of the index for the pipeline's `__init__` that are no components, such as `boundary_ratio`."""
    accepted = calls.init_parameters(pipeline_class(model))
    listed = entries(model.index)
    return {
        k: v for k, v in model.index.items() if k in accepted and k not in listed and not k.startswith("_")
    }


def component_entries(model: ModelFacts) -> dict[str, Entry | None]:
    """The class of each component that the pipeline takes; None for those that it goes without."""
    pipeline = pipeline_class(model)
    listed = entries(model.index)
    found: dict[str, Entry | None] = {}
    missing = []
    for name, parameter in calls.init_parameters(pipeline).items():
        given = _with_config(name, listed.get(name), model.configs.get(name, {}))
        if given is not None or name in listed:
            found[name] = given
        elif name in declared_roles(pipeline) and name not in model.index:
            if parameter.required and not _is_optional(pipeline, name):
                missing.append(name)
            found[name] = None
    if missing:
        names = ", ".join(missing)
        raise UnsupportedModelError(
            f"{pipeline.name} needs {names}, which this model has not: name a model or a folder for each in "
            f'[model.components], such as {missing[0]} = "owner/name"'
        )
    _refuse_rebuilt(pipeline, found)
    return found


def _refuse_rebuilt(pipeline: SourceClass, found: Mapping[str, Entry | None]) -> None:
    """Refuse a UNet that the pipeline's `__init__` would replace by a new model of it and an adapter."""
    init, unet = source.method(pipeline, "__init__"), found.get("unet")
    if init is None or unet is None or unet.name != "UNet2DConditionModel":
        return
    for node in ast.walk(init):
        if isinstance(node, ast.Attribute) and node.attr in ("from_unet", "from_unet2d"):
            made = ast.unparse(node.value)
            raise UnsupportedModelError(
                f"{pipeline.name} makes {made} of this model's unet while loading, of weights in no file: "
                "make it once, save_pretrained() it, and name that folder as unet in [model.components]"
            )


@cache
def used_outside_encoding(pipeline: SourceClass) -> frozenset[str]:
    """Objects without weights that the pipeline needs where no result of encoding is played back."""
    roles = declared_roles(pipeline)
    encoding = {use.within for use in calls.uses(pipeline) if roles.get(use.component) is Role.ENCODE} - {""}
    used = {use.component for use in calls.uses(pipeline) if use.within not in encoding}
    return frozenset(
        name for name in used | calls.needed_by_init(pipeline) if roles.get(name) is Role.AUXILIARY
    )


def _components(model: ModelFacts, stage: Role) -> tuple[Component, ...]:
    pipeline = pipeline_class(model)
    pictures = encodes_pictures(pipeline) if stage is Role.ENCODE else frozenset()
    found = []
    for name, given in component_entries(model).items():
        if given is None:
            continue
        role = role_of(pipeline.name, name, given)
        if role is Role.AUXILIARY:
            if stage is Role.ENCODE or _is_everywhere(pipeline, name, given):
                found.append(_loaded(name, given))
        elif role is stage or name in pictures:
            found.append(_loaded(name, given))
        else:
            buffers = tensors_read(pipeline, name, given)
            found.append(
                Component(name, given.cls, config_only=True, buffers=buffers, accepts=_accepts(given))
            )
    return tuple(found)


def _loaded(name: str, given: Entry) -> Component:
    return Component(name, given.cls, accepts=_accepts(given), float32=_kept_in_float32(given))


def _accepts(given: Entry) -> tuple[str, ...]:
    """Other classes that the files may name: those of transformers name many that fit."""
    if given.source is None or not given.has_weights:
        return ("*",)
    return tuple(old for old, new in _renamed().items() if given.name in new.values())


@cache
def _renamed() -> Mapping[str, Mapping[str, str]]:
    """Classes that diffusers loads as others, by the `norm_type` in their config."""
    found = source.constant("_CLASS_REMAPPING_DICT", "diffusers.models.model_loading_utils")
    return found if isinstance(found, dict) else {}


def _is_everywhere(pipeline: SourceClass, name: str, given: Entry) -> bool:
    if name in PROCESSORS or name in used_outside_encoding(pipeline):
        return True
    return given.source is not None and any(base in source.ancestors(given.source) for base in IN_EVERY_STAGE)


def _is_optional(pipeline: SourceClass, name: str) -> bool:
    optional = source.attribute(pipeline, "_optional_components")
    return name == "safety_checker" or (isinstance(optional, list) and name in optional)


def _with_config(name: str, listed: Entry | None, config: Mapping[str, Any]) -> Entry | None:
    """A component's class: as the index has it, or its config, if that is of another model."""
    own = config.get("_class_name")
    if listed is not None and (listed.source is None or not isinstance(own, str)):
        return listed
    if isinstance(own, str):
        library = "diffusers" if listed is None else listed.library
        return entry(name, library, _renamed().get(own, {}).get(str(config.get("norm_type")), own))
    architectures = config.get("architectures")
    if isinstance(architectures, list) and architectures and isinstance(architectures[0], str):
        return entry(name, "transformers", architectures[0])
    if isinstance(cls := config.get("tokenizer_class"), str):
        return entry(name, "transformers", cls)
    return None


@cache
def _kept_in_float32(given: Entry) -> Mapping[str, tuple[str, ...]]:
    """The weights that the class keeps in float32, by the dtype that all others have."""
    if not given.has_weights:
        return {}
    if given.source is not None:
        always, sometimes = source.attribute(given.source, "_keep_in_fp32_modules"), None
    else:
        always = source.transformers_attribute(given.name, "_keep_in_fp32_modules_strict")
        sometimes = source.transformers_attribute(given.name, "_keep_in_fp32_modules")
    kept = {"bfloat16": _names(always), "float16": (*_names(always), *_names(sometimes))}
    return {dtype: names for dtype, names in kept.items() if names}


def _names(value: object) -> tuple[str, ...]:
    listed = [value] if isinstance(value, str) else value
    return tuple(sorted(listed)) if isinstance(listed, list | tuple | set) else ()


@cache
def tensors_read(pipeline: SourceClass, name: str, given: Entry) -> tuple[str, ...]:
    """Patterns of the tensors of a component that the pipeline itself reads: buffers and parameters."""
    if given.source is None:
        return ()
    patterns = set()
    read = _attributes_read(pipeline, name)
    for node in ast.walk(given.source.node):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr == "register_buffer" and node.args and isinstance(node.args[0], ast.Constant):
                patterns.add(str(node.args[0].value))
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            made, target = ast.unparse(node.value.func), ast.unparse(node.targets[0]).removeprefix("self.")
            if "BatchNorm" in made:
                patterns.add(f"{target}.*")
            elif made.endswith("Parameter") and target in read:
                patterns.add(target)
    return tuple(sorted(pattern for pattern in patterns if pattern.removesuffix(".*") in read))


@cache
def _attributes_read(pipeline: SourceClass, component: str) -> frozenset[str]:
    """Names X of ``self.component.X`` and ``getattr(self.component, "X")`` in the pipeline's code."""
    found = set()
    for cls in source.lineage(pipeline):
        if not cls.module.startswith("diffusers.pipelines."):
            continue
        for node in ast.walk(cls.node):
            if isinstance(node, ast.Attribute) and calls.is_own(node.value, component):
                found.add(node.attr)
            elif isinstance(node, ast.Call) and len(node.args) > 1 and calls.is_own(node.args[0], component):
                attribute = node.args[1]
                if isinstance(attribute, ast.Constant):
                    found.add(str(attribute.value))
    return frozenset(found)
