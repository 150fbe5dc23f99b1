"""Follows a pipeline's `__call__` and `check_inputs` with an item's values, as far as these decide.

What it would certainly raise is an error before anything is loaded; what it
would certainly log is a warning.
Where a condition depends on something that is not known, nothing is concluded.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from runner_diffusers.pipelines import calls, source
from runner_diffusers.pipelines.evaluate import UNKNOWN, Known, evaluate, truth
from runner_diffusers.pipelines.roles import declared_roles

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from runner_diffusers.pipelines.source import SourceClass

CHECK = "check_inputs"
AFTERWARDS = ("encode_prompt", "progress_bar", "set_timesteps", "prepare_latents")
"""Methods that are called after the pipeline's own checks."""


@dataclass(frozen=True)
class Finding:
    """What a pipeline would say of its arguments."""

    message: str
    about: tuple[str, ...]
    """The names in the condition."""
    is_warning: bool


def findings(
    cls: SourceClass,
    arguments: Mapping[str, Any],
    configs: Mapping[str, Mapping[str, Any]],
    values: Mapping[str, Any],
) -> tuple[list[Finding], Known]:
    """What `__call__` says of these arguments, and the pipeline as it then is.

    `configs` are those of its components, `values` what the index gives to its `__init__`.
    """
    pipeline = _pipeline(cls, configs, values)
    call = source.method(cls, calls.CALL)
    if call is None:
        return [], pipeline
    follower = _Follower(cls, {**arguments, "self": pipeline})
    follower.run(call.body)
    return follower.found, pipeline


def is_true_property(cls: SourceClass, name: str, pipeline: Known) -> bool | None:
    """The truth of a property that returns one expression; None if it is not known."""
    method = source.method(cls, name)
    result = method.body[-1] if method is not None and len(method.body) == 1 else None
    if not isinstance(result, ast.Return) or result.value is None:
        return None
    return truth(evaluate(result.value, {"self": pipeline}))


def _pipeline(cls: SourceClass, configs: Mapping[str, Mapping[str, Any]], values: Mapping[str, Any]) -> Known:
    """The pipeline after its `__init__`: components with configs, and numbers made from these."""
    components = {name: Known({"config": _config(config)}) for name, config in configs.items()}
    plain = {name: value for name, value in _defaults(cls).items() if name not in declared_roles(cls)}
    parameters = plain | dict(values)
    attributes = {**components, "config": Known(parameters)}
    init = source.method(cls, "__init__")
    if init is not None:
        unknown = dict.fromkeys(calls.init_parameters(cls), UNKNOWN)
        _Follower(cls, {**unknown, **parameters, **components, "self": Known(attributes)}).run(init.body)
    return Known(attributes)


def _config(config: Mapping[str, Any]) -> Known:
    """A component's config; what it leaves out has the default of the class."""
    cls = source.find(str(config.get("_class_name", "")))
    return Known({**(_defaults(cls) if cls is not None else {}), **config})


@cache
def _defaults(cls: SourceClass) -> Mapping[str, Any]:
    """The defaults of a class's `__init__`, those that can be evaluated."""
    found = {}
    for name, parameter in calls.init_parameters(cls).items():
        if parameter.default is not None and (value := evaluate(parameter.default, {})) is not UNKNOWN:
            found[name] = value
    return found


class _Follower:
    """Runs statements over values, some of which are unknown."""

    def __init__(self, cls: SourceClass, scope: dict[str, Any]) -> None:
        self.cls, self.scope = cls, scope
        self.found: list[Finding] = []

    def run(self, body: Iterable[ast.stmt], about: tuple[str, ...] = ()) -> bool:
        """Follow statements; False if one ends what is followed. `about` are names of the condition."""
        return all(self._step(node, about) for node in body)

    def _step(self, node: ast.stmt, about: tuple[str, ...]) -> bool:
        """Whether the next statement is reached."""
        if isinstance(node, ast.If):
            return self._branch(node, about)
        if isinstance(node, ast.Raise):
            self._tell(node.exc, about, is_warning=False)
            return False
        if isinstance(node, ast.Return) or _ends(node):
            return False
        if isinstance(node, ast.Assign):
            value = evaluate(node.value, self.scope)
            for target in node.targets:
                self._assign(target, value)
        elif isinstance(node, ast.Expr):
            return self._call(node.value, about)
        else:
            self._forget(node)
        return True

    def _branch(self, node: ast.If, about: tuple[str, ...]) -> bool:
        test = truth(evaluate(node.test, self.scope))
        if test is None:  # it raises, and then the item fails anyway, or it does not
            self._forget(node)
            return not any(isinstance(one, ast.Return) or _ends(one) for one in ast.walk(node))
        names = tuple(dict.fromkeys(one.id for one in ast.walk(node.test) if isinstance(one, ast.Name)))
        return self.run(node.body if test else node.orelse, names if test else about)

    def _call(self, node: ast.expr, about: tuple[str, ...]) -> bool:
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name == "logger.warning":
                self._tell(node, about, is_warning=True)
            elif name == f"self.{CHECK}" and (method := source.method(self.cls, CHECK)) is not None:
                return self._check(method, node)
        return True

    def _check(self, method: ast.FunctionDef, node: ast.Call) -> bool:
        """Follow `check_inputs`, with the names of the caller for what its parameters are called."""
        arguments = [*method.args.args[1:], *method.args.kwonlyargs]
        given = dict(zip((arg.arg for arg in arguments), node.args, strict=False))
        given |= {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}
        scope: dict[str, Any] = {arg.arg: UNKNOWN for arg in arguments}
        positional = method.args.args[len(method.args.args) - len(method.args.defaults) :]
        scope |= {a.arg: evaluate(d, {}) for a, d in zip(positional, method.args.defaults, strict=True)}
        scope |= {name: evaluate(value, self.scope) for name, value in given.items()}
        follower = _Follower(self.cls, {**scope, "self": self.scope["self"]})
        follower.run(method.body)
        callers = {name: value.id for name, value in given.items() if isinstance(value, ast.Name)}
        for one in follower.found:
            about = tuple(callers.get(name, name) for name in one.about)
            self.found.append(Finding(one.message, about, one.is_warning))
        return all(one.is_warning for one in follower.found)

    def _tell(self, node: ast.expr | None, about: tuple[str, ...], *, is_warning: bool) -> None:
        text = evaluate(node.args[0], self.scope) if isinstance(node, ast.Call) and node.args else UNKNOWN
        message = text if isinstance(text, str) else "it refuses these arguments"
        self.found.append(Finding(message, about, is_warning))

    def _assign(self, target: ast.expr, value: Any) -> None:
        if isinstance(target, ast.Name):
            self.scope[target.id] = value
        elif isinstance(target, ast.Attribute) and calls.is_own(target, target.attr):
            attributes = self.scope["self"].attributes
            if target.attr not in attributes or value is not UNKNOWN:
                attributes[target.attr] = value
        elif isinstance(target, ast.Tuple):
            values = value if isinstance(value, tuple | list) and len(value) == len(target.elts) else None
            for n, one in enumerate(target.elts):
                self._assign(one, values[n] if values is not None else UNKNOWN)

    def _forget(self, node: ast.stmt) -> None:
        """What a statement might assign is unknown after it."""
        for one in _assigned(node):
            if isinstance(one, ast.Name):
                self.scope[one.id] = UNKNOWN
            elif calls.is_own(one, one.attr):
                self.scope["self"].attributes[one.attr] = UNKNOWN


def _ends(node: ast.AST) -> bool:
    """Whether a statement begins what comes after the pipeline's own checks."""
    return isinstance(node, ast.Assign | ast.With | ast.For | ast.Expr) and any(
        isinstance(one, ast.Call) and isinstance(one.func, ast.Attribute) and one.func.attr in AFTERWARDS
        for one in ast.walk(node)
    )


def _assigned(node: ast.stmt) -> Iterator[ast.Name | ast.Attribute]:
    for one in ast.walk(node):
        if isinstance(one, ast.Name | ast.Attribute) and isinstance(one.ctx, ast.Store):
            yield one
