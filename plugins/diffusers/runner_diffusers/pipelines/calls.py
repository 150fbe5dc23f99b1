"""Which components a pipeline's `__call__` uses, in which order and in which loops, read from its source."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from runner_diffusers.pipelines import source

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from runner_diffusers.pipelines.source import SourceClass

CALL = "__call__"
SAME = ("_orig_mod", "language_model", "vision_tower")
"""Attributes of a model that are a model too, whose calls count as calls of the component.

``_orig_mod`` is the model that ``torch.compile`` has wrapped; the others are parts of a multimodal encoder.
"""
CHAIN = 3
"""How often local names are followed: a list of components, its element, another name of the element."""


@dataclass(frozen=True)
class Use:
    """A call of a component, or of one of its methods."""

    component: str
    method: str
    place: str
    """Where the call is written, for messages: the pipeline's method, and the line in its file."""
    within: str
    """The method of the pipeline through which `__call__` gets there; empty if `__call__` has it itself."""
    loop: int
    """A number that is the same for all uses inside the same outermost loop; 0 outside of loops."""


@dataclass(frozen=True)
class InitParameter:
    """A parameter of a pipeline's ``__init__``."""

    annotation: ast.expr | None
    default: ast.expr | None

    @property
    def required(self) -> bool:
        """Whether it has no default."""
        return self.default is None


def is_own(node: ast.expr, name: str) -> bool:
    """Whether it is ``self.name``."""
    return (
        isinstance(node, ast.Attribute)
        and node.attr == name
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    )


@cache
def init_parameters(cls: SourceClass) -> dict[str, InitParameter]:
    """The parameters of a pipeline's `__init__`, by name."""
    init = source.method(cls, "__init__")
    if init is None:
        return {}
    positional = [*init.args.posonlyargs, *init.args.args][1:]
    defaults = [*[None] * (len(positional) - len(init.args.defaults)), *init.args.defaults]
    found = zip([*positional, *init.args.kwonlyargs], [*defaults, *init.args.kw_defaults], strict=True)
    return {arg.arg: InitParameter(arg.annotation, default) for arg, default in found}


@cache
def needed_by_init(cls: SourceClass) -> frozenset[str]:
    """The components whose attributes a pipeline's `__init__` reads without asking whether they are there."""
    init = source.method(cls, "__init__")
    return frozenset() if init is None else frozenset(_read_unconditionally(init, init_parameters(cls)))


def _read_unconditionally(node: ast.AST, names: Collection[str]) -> Iterator[str]:
    if isinstance(node, ast.IfExp | ast.If | ast.BoolOp):
        return
    if isinstance(node, ast.Attribute):
        of = node.value
        if isinstance(of, ast.Name) and of.id in names:
            yield of.id
        elif isinstance(of, ast.Attribute) and of.attr in names and is_own(of, of.attr):
            yield of.attr
    for child in ast.iter_child_nodes(node):
        yield from _read_unconditionally(child, names)


@cache
def uses(cls: SourceClass) -> tuple[Use, ...]:
    """All calls of components in a pipeline's `__call__` and the methods that it calls, in their order."""
    call = source.method(cls, CALL)
    return () if call is None else tuple(_Reader(cls, call, {}, 0, (CALL,)).read())


class _Reader:
    """Reads one method of a pipeline. `bound` has, by variable name, the components that may be its value."""

    def __init__(
        self,
        cls: SourceClass,
        method: ast.FunctionDef,
        bound: Mapping[str, frozenset[str]],
        loop: int,
        path: tuple[str, ...],
    ) -> None:
        self.cls, self.method, self.loop, self.path = cls, method, loop, path
        self.components = init_parameters(cls)
        self.bound = dict(bound)
        for _ in range(CHAIN):  # each round finds variables whose value is a variable found before
            for target, value in _named_in(method):
                if isinstance(target, ast.Name) and (meant := self._meant(value)):
                    self.bound[target.id] = self.bound.get(target.id, frozenset()) | meant

    def read(self) -> Iterator[Use]:
        for node in self.method.body:
            yield from self._visit(node, self.loop)

    def _visit(self, node: ast.AST, loop: int) -> Iterator[Use]:
        """The uses in a node, in the order in which they happen."""
        if isinstance(node, ast.For | ast.While):
            inside = loop or hash((self.path, node.lineno)) or 1
            before = node.iter if isinstance(node, ast.For) else node.test
            yield from self._visit(before, loop if isinstance(node, ast.For) else inside)
            for line in node.body:
                yield from self._visit(line, inside)
            for line in node.orelse:
                yield from self._visit(line, loop)
        elif isinstance(node, ast.Assign):
            yield from self._visit(node.value, loop)
        else:
            for child in ast.iter_child_nodes(node):
                yield from self._visit(child, loop)
            if isinstance(node, ast.Call):
                yield from self._called(node, loop)

    def _called(self, node: ast.Call, loop: int) -> Iterator[Use]:
        for component in sorted(self._meant(node.func)):
            yield self._use(component, CALL, node, loop)
        if not isinstance(node.func, ast.Attribute):
            return
        chain, of = [node.func.attr], node.func.value
        while isinstance(of, ast.Attribute) and not self._meant(of):
            chain, of = [of.attr, *chain], of.value
        for component in sorted(self._meant(of)):
            yield self._use(component, ".".join(chain), node, loop)
        if isinstance(of, ast.Name) and of.id == "self" and len(chain) == 1:
            yield from self._followed(chain[0], node, loop)

    def _followed(self, name: str, node: ast.Call, loop: int) -> Iterator[Use]:
        method = source.method(self.cls, name)
        if method is None or name in self.path:
            return
        is_static = any(ast.unparse(one) == "staticmethod" for one in method.decorator_list)
        parameters = method.args.args if is_static else method.args.args[1:]
        given = {arg.arg: value for arg, value in zip(parameters, node.args, strict=False)}
        given |= {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}
        bound = {arg: meant for arg, value in given.items() if (meant := self._meant(value))}
        yield from _Reader(self.cls, method, bound, loop, (*self.path, name)).read()

    def _use(self, component: str, method: str, node: ast.Call, loop: int) -> Use:
        place = f"{self.method.name}, line {node.lineno}"
        return Use(component, method, place, self.path[1] if len(self.path) > 1 else "", loop)

    def _meant(self, node: ast.expr) -> frozenset[str]:
        """The components that an expression may stand for."""
        if isinstance(node, ast.Name):
            return self.bound.get(node.id, frozenset())
        if isinstance(node, ast.IfExp):
            return self._meant(node.body) | self._meant(node.orelse)
        if isinstance(node, ast.List | ast.Tuple):
            return frozenset().union(*map(self._meant, node.elts))
        if isinstance(node, ast.Subscript):
            return self._meant(node.value)
        if isinstance(node, ast.Attribute):
            if isinstance(node.value, ast.Name) and node.value.id == "self":
                return frozenset({node.attr} & self.components.keys())
            return self._meant(node.value) if node.attr in SAME else frozenset()
        return frozenset()


@cache
def _named_in(method: ast.FunctionDef) -> tuple[tuple[ast.expr, ast.expr], ...]:
    """The names that the statements of a method give to values."""
    return tuple(pair for node in ast.walk(method) for pair in _named(node))


def _named(node: ast.AST) -> Iterator[tuple[ast.expr, ast.expr]]:
    """The names that a statement gives to values: of an assignment, or of a loop over lists."""
    if isinstance(node, ast.Assign):
        yield from ((target, node.value) for target in node.targets)
    elif isinstance(node, ast.For):
        over = node.iter
        if (
            isinstance(over, ast.Call)
            and isinstance(node.target, ast.Tuple)
            and ast.unparse(over.func) == "zip"
        ):
            yield from zip(node.target.elts, over.args, strict=False)
        else:
            yield node.target, over
