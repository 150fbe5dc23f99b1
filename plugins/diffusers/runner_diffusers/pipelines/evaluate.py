"""Evaluates expressions of pipelines' source as far as their values are known without running anything.

A value is a plain Python value, a :class:`Known` object of which a few facts are known, or :data:`UNKNOWN`.
"""

from __future__ import annotations

import ast
import operator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Unknown:
    """A value that only a run would tell."""

    def __repr__(self) -> str:
        return "..."


UNKNOWN = Unknown()


@dataclass(frozen=True)
class Known:
    """An object of which some attributes are known: a pipeline, a component, a config."""

    attributes: Mapping[str, Any] = field(default_factory=dict)
    is_true: bool | None = True


BINARY: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
COMPARED: Mapping[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}
FUNCTIONS: Mapping[str, Callable[..., Any]] = {"len": len, "max": max, "min": min, "int": int, "float": float}
TYPES: Mapping[str, type] = {kind.__name__: kind for kind in (str, int, float, bool, list, tuple, dict)}


def evaluate(node: ast.expr, scope: Mapping[str, Any]) -> Any:
    """The value of an expression; `scope` has the names' values."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        return scope.get(node.id, UNKNOWN)
    if isinstance(node, ast.Tuple | ast.List):
        values = [evaluate(one, scope) for one in node.elts]
        made = tuple(values) if isinstance(node, ast.Tuple) else values
        return made if not any(value is UNKNOWN for value in values) else UNKNOWN
    if isinstance(node, ast.Attribute):
        return _attribute(evaluate(node.value, scope), node.attr)
    if isinstance(node, ast.UnaryOp):
        return _unary(node, scope)
    if isinstance(node, ast.BoolOp):
        return _both(node, scope)
    if isinstance(node, ast.BinOp):
        return _applied(BINARY.get(type(node.op)), evaluate(node.left, scope), evaluate(node.right, scope))
    if isinstance(node, ast.Compare):
        return _compared(node, scope)
    if isinstance(node, ast.IfExp):
        test = truth(evaluate(node.test, scope))
        return UNKNOWN if test is None else evaluate(node.body if test else node.orelse, scope)
    if isinstance(node, ast.Call):
        return _called(node, scope)
    if isinstance(node, ast.JoinedStr):
        return "".join(_formatted(part, scope) for part in node.values)
    return UNKNOWN


def truth(value: Any) -> bool | None:
    """Whether a value counts as true; None if that is not known."""
    if value is UNKNOWN:
        return None
    return value.is_true if isinstance(value, Known) else bool(value)


def _attribute(value: Any, name: str) -> Any:
    return value.attributes.get(name, UNKNOWN) if isinstance(value, Known) else UNKNOWN


def _unary(node: ast.UnaryOp, scope: Mapping[str, Any]) -> Any:
    value = evaluate(node.operand, scope)
    if isinstance(node.op, ast.Not):
        known = truth(value)
        return UNKNOWN if known is None else not known
    return _applied(operator.neg, value) if isinstance(node.op, ast.USub) else UNKNOWN


def _both(node: ast.BoolOp, scope: Mapping[str, Any]) -> Any:
    """The value of `and` or `or`; one operand may settle it though another one is unknown."""
    ends = isinstance(node.op, ast.Or)  # the truth of an operand that ends the evaluation
    values = [evaluate(one, scope) for one in node.values]
    known = [truth(value) for value in values]
    for n, value in enumerate(values[:-1]):
        if known[n] is None:
            return ends if ends in known[n:] else UNKNOWN
        if known[n] is ends:
            return value
    return values[-1]


def _compared(node: ast.Compare, scope: Mapping[str, Any]) -> Any:
    left = evaluate(node.left, scope)
    for op, other in zip(node.ops, node.comparators, strict=True):
        right = evaluate(other, scope)
        if isinstance(op, ast.Is | ast.IsNot):
            if left is UNKNOWN or right is UNKNOWN:
                return UNKNOWN
            result: Any = (left is right) == isinstance(op, ast.Is)
        else:
            result = _applied(COMPARED.get(type(op)), left, right)
        if result is UNKNOWN or not result:
            return result
        left = right
    return True


def _called(node: ast.Call, scope: Mapping[str, Any]) -> Any:
    name = node.func.id if isinstance(node.func, ast.Name) else ""
    if name == "isinstance":
        return _is_instance(evaluate(node.args[0], scope), node.args[1])
    arguments = [evaluate(one, scope) for one in node.args]
    if name in ("getattr", "hasattr") and isinstance(arguments[0], Known) and isinstance(arguments[1], str):
        there = arguments[0].attributes.get(arguments[1], UNKNOWN)
        if name == "hasattr":
            return UNKNOWN if there is UNKNOWN else True
        return there
    return UNKNOWN if node.keywords else _applied(FUNCTIONS.get(name), *arguments)


def _is_instance(value: Any, kinds: ast.expr) -> Any:
    """Whether a plain value is of these types; it is of no type but the plain ones."""
    if value is UNKNOWN or isinstance(value, Known):
        return UNKNOWN
    listed = kinds.elts if isinstance(kinds, ast.Tuple) else [kinds]
    names = [ast.unparse(one) for one in listed]
    return any(name in TYPES and isinstance(value, TYPES[name]) for name in names)


def _applied(function: Callable[..., Any] | None, *values: Any) -> Any:
    if function is None or any(value is UNKNOWN or isinstance(value, Known) for value in values):
        return UNKNOWN
    try:
        return function(*values)
    except (TypeError, ValueError, ArithmeticError):
        return UNKNOWN


def _formatted(part: ast.expr, scope: Mapping[str, Any]) -> str:
    if isinstance(part, ast.Constant):
        return str(part.value)
    if not isinstance(part, ast.FormattedValue):
        return "..."
    value = evaluate(part.value, scope)
    return "..." if value is UNKNOWN or isinstance(value, Known) else str(value)
