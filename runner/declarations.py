"""Validates what a plugin's hooks return, field by field; the errors name the field and what to write.

Without this, a field of a wrong type would fail later, for users instead of the plugin's author.
"""

from __future__ import annotations

import re
from dataclasses import is_dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from runner.api import Bundle, Component, Demo, Executor, File, Stage, Template, Tensor, Text

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from types import ModuleType

LOCAL = "local"
"""The executor that is always there: workers on this machine."""
OUTPUTS = (Tensor, Text, File, Bundle)
_STAGE_NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)+")
_OUTPUT_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}")
_SUFFIX = re.compile(r"(\.[A-Za-z0-9_-]{1,16}){0,2}")
_SUFFIX_PARAMETER = re.compile(r"\.\{[A-Za-z_][\w-]*\}")
_DOTTED = re.compile(r"[\w.]+:[\w.]+")
_EXECUTOR_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,99}")
_WRITE = {
    Stage: 'Stage("plugin.stage", start="package.module:start")',
    Executor: 'Executor("name", connect="package.module:connect")',
    Template: "Template(...)",
    Demo: "Demo(...)",
}
SHOWN = 60  # characters of a value in a message


class DeclarationError(Exception):
    """A plugin's declaration is not valid; the message is shown to users."""


def returned(hook: str, value: Any, kind: type[Any]) -> Iterator[Any]:
    """Yield what a hook returned, one by one.

    Raises:
        DeclarationError: it is not a collection of that kind.

    """
    if isinstance(value, kind):
        raise DeclarationError(f"{hook} returned one {kind.__name__}; return a tuple of them: (stage,)")
    if value is None or isinstance(value, str) or not hasattr(value, "__iter__"):
        raise DeclarationError(f"{hook} returned {_shown(value)}; return a tuple, as of {_WRITE[kind]}")
    for declaration in value:
        if not isinstance(declaration, kind):
            raise DeclarationError(f"{hook} returned {_shown(declaration)}, which is not a {kind.__name__}")
        yield declaration


def check_stage(stage: Stage) -> None:
    """Check the fields of a stage as :mod:`runner.api` documents them.

    Raises:
        DeclarationError: a field has a wrong type or value.

    """
    where = f"stage {_shown(stage.name)}"
    _string(where, "name", stage.name)
    if not _STAGE_NAME.fullmatch(stage.name):
        raise DeclarationError(f"{where}: a stage's name is PLUGIN.STAGE, of A-Z a-z 0-9 _ -")
    _string(where, "summary", stage.summary)
    _object(where, "start", stage.start)
    for name in ("params", "memory", "check"):
        if getattr(stage, name) != "":
            _object(where, name, getattr(stage, name))
    if type(stage.version) is not int:
        raise DeclarationError(
            f"{where}: version is not an integer: {_shown(stage.version)}; write version=2"
        )
    for name in ("inputs", "outputs"):
        for n, output in enumerate(_members(where, name, getattr(stage, name), OUTPUTS, _as_output)):
            _check_output(f"{where}: {name}[{n}]", output, is_output=name == "outputs")
            if (
                isinstance(output, File)
                and output.suffix_parameter
                and not (name == "outputs" and stage.params)
            ):
                needs = "a stage that has parameters" if name == "outputs" else "an output"
                raise DeclarationError(f"{where}: {name}[{n}]: suffix {output.suffix!r} is for {needs}")
    if isinstance(stage.components, str):
        _object(where, "components", stage.components)
    else:
        check_components(where, stage.components)
    _strings(where, "preload", stage.preload)
    _strings(where, "pipelines", stage.pipelines)


def check_components(where: str, components: Any) -> tuple[Component, ...]:
    """The components that a stage declares or a plugin's function returns, checked.

    Raises:
        DeclarationError: it is not a collection of components, or a field has a wrong type or value.

    """
    found = tuple(_members(where, "components", components, (Component,), _as_component))
    for n, component in enumerate(found):
        _check_component(f"{where}: components[{n}]", component)
    return found


def _check_output(where: str, output: Tensor | Text | File | Bundle, *, is_output: bool) -> None:
    _string(where, "name", output.name)
    _flag(where, "optional", output.optional)
    suffix = output.suffix if isinstance(output, File) else ""
    _string(where, "suffix", suffix)
    if isinstance(output, Tensor):
        _string(where, "dtype", output.dtype)
        _check_shape(where, output.shape)
    if _SUFFIX_PARAMETER.fullmatch(suffix):
        suffix = ""
    if is_output and not (_OUTPUT_NAME.fullmatch(output.name) and _SUFFIX.fullmatch(suffix)):
        hint = f"; write {'.' + suffix!r}" if suffix and suffix[0] != "." else ""
        what = f"output {output.name + suffix!r} cannot be part of a file name"
        raise DeclarationError(f"{where}: {what}{hint}")


def check_suffix_parameters(stage: Stage, parameters: Collection[str]) -> None:
    """Check that the parameters that suffixes of files name are among those of the stage.

    Raises:
        DeclarationError: one is not.

    """
    for n, output in enumerate(stage.outputs):
        name = output.suffix_parameter if isinstance(output, File) else ""
        if name and name not in parameters:
            what = (
                f"suffix {output.suffix!r} names no parameter of the stage"
                if isinstance(output, File)
                else ""
            )
            raise DeclarationError(f"stage {_shown(stage.name)}: outputs[{n}]: {what}")


def _check_shape(where: str, shape: Any) -> None:
    if shape is None:
        return
    if not isinstance(shape, tuple | list) or not all(type(size) in (int, str) for size in shape):
        example = 'a number or a letter for each dimension, such as ("C", "H", "W")'
        raise DeclarationError(f"{where}: shape is {_shown(shape)}; write {example}")


def _check_component(where: str, component: Component) -> None:
    _string(where, "name", component.name)
    _flag(where, "config_only", component.config_only)
    if component.cls != "" or not component.config_only:  # with config_only, nothing is loaded
        _object(where, "cls", component.cls)
    _string(where, "folder", component.folder)
    _strings(where, "blocks", component.blocks)
    _strings(where, "buffers", component.buffers)
    _strings(where, "files", component.files)
    _strings(where, "accepts", component.accepts)
    _string(where, "encoder", component.encoder)
    kept = component.float32
    if not (isinstance(kept, dict) and all(isinstance(name, str) for name in kept)):
        example = 'parts of names by dtype, such as {"float16": ("wo",)}'
        raise DeclarationError(f"{where}: float32 is {_shown(kept)}; write {example}")
    for dtype, names in kept.items():
        _strings(where, f"float32[{dtype!r}]", names)


def check_executor(executor: Executor) -> None:
    """Check the fields of an executor as :mod:`runner.api` documents them.

    Raises:
        DeclarationError: a field has a wrong type or value.

    """
    where = f"executor {_shown(executor.name)}"
    _string(where, "name", executor.name)
    if executor.name == LOCAL or not _EXECUTOR_NAME.fullmatch(executor.name):
        raise DeclarationError(f"{where}: its name is of a-z 0-9 _ -, and not '{LOCAL}'")
    _string(where, "summary", executor.summary)
    _object(where, "connect", executor.connect)
    if executor.params != "":
        _object(where, "params", executor.params)


def check_template(template: Template, package: ModuleType) -> None:
    """Check the fields of a template as :mod:`runner.api` documents them.

    Whether its file exists is checked when it is used: without it, the plugin's stages still work.

    Raises:
        DeclarationError: a field has a wrong type or value.

    """
    where = f"template {_shown(template.name)}"
    _string(where, "model", template.model)
    _strings(where, "pipelines", template.pipelines)
    _flag(where, "only_by_name", template.only_by_name)
    if template.recommend != "":
        _object(where, "recommend", template.recommend)
    _strings(where, "files", template.files)
    for file in template.files:
        _inside_package(where, "files", file)
    _check_packaged(where, template, package)


def check_demo(demo: Demo, package: ModuleType) -> None:
    """Check the fields of a demo as :mod:`runner.api` documents them; its file like a template's.

    Raises:
        DeclarationError: a field has a wrong type or value.

    """
    where = f"demo {_shown(demo.name)}"
    _string(where, "summary", demo.summary)
    _check_packaged(where, demo, package)


def _check_packaged(where: str, declaration: Template | Demo, package: ModuleType) -> None:
    """Check the name of a declaration and the path of its file in the plugin's package."""
    _string(where, "name", declaration.name)
    _string(where, "path", declaration.path)
    _inside_package(where, "path", declaration.path)
    if not hasattr(package, "__path__"):
        kind = type(declaration).__name__.lower()
        what = f"{package.__name__} is a single module; a {kind} must be in the folder of a package"
        raise DeclarationError(f"{where}: {what}")


def _inside_package(where: str, name: str, file: str) -> None:
    """Require the path of a file in the plugin's package."""
    path = PurePosixPath(file)
    if not file or path.is_absolute() or ".." in path.parts:
        raise DeclarationError(f"{where}: {name} is not inside the plugin's folder: {file!r}")


def _string(where: str, name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise DeclarationError(f"{where}: {name} is not a string: {_shown(value)}")


def _flag(where: str, name: str, value: Any) -> None:
    if type(value) is not bool:
        raise DeclarationError(f"{where}: {name} is {_shown(value)}; write {name}=True or {name}=False")


def _object(where: str, name: str, value: Any) -> None:
    """Require a dotted string, ``"package.module:name"``."""
    if isinstance(value, str) and _DOTTED.fullmatch(value):
        return
    example = "package.module:name"
    if callable(value) and hasattr(value, "__qualname__"):
        example = f"{value.__module__}:{value.__qualname__}"
    raise DeclarationError(f"{where}: {name} is {_shown(value)}; name it in a string: {name}={example!r}")


def _strings(where: str, name: str, value: Any) -> None:
    for _ in _members(where, name, value, (str,), repr):
        pass


def _members(
    where: str, name: str, value: Any, kinds: tuple[type[Any], ...], example: Callable[[str], str]
) -> Iterator[Any]:
    """Yield the members of a tuple; ``example`` turns a string into what should be written instead."""
    what = " or ".join(kind.__name__ for kind in kinds)
    if isinstance(value, (*kinds, str)):
        one = example(value) if isinstance(value, str) else _shown(value)
        raise DeclarationError(f"{where}: {name} is {_shown(value)}, not a tuple of {what}: write ({one},)")
    if not isinstance(value, tuple | list):
        raise DeclarationError(f"{where}: {name} is {_shown(value)}, not a tuple of {what}")
    for n, member in enumerate(value):
        if not isinstance(member, kinds):
            hint = f": write {example(member)}" if isinstance(member, str) else ""
            raise DeclarationError(f"{where}: {name}[{n}] is {_shown(member)}, not a {what}{hint}")
        yield member


def _as_output(name: str) -> str:
    return f'Tensor("{name}"), Text("{name}"), Bundle("{name}") or File("{name}", ".png")'


def _as_component(name: str) -> str:
    return f'Component("{name}", "package.module:Class")'


def _shown(value: Any) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if is_dataclass(value):
        shown = f"{type(value).__name__}({getattr(value, 'name', '...')!r})"
    else:
        shown = repr(value)
    return shown if len(shown) <= SHOWN else f"{shown[: SHOWN - 3]}..."
