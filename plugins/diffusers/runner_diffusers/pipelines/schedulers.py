"""The ``scheduler`` parameter: a class of diffusers' schedulers, and options of its `__init__`."""

from __future__ import annotations

from difflib import get_close_matches
from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from runner_diffusers.pipelines import calls, source
from runner_diffusers.pipelines.signature import type_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from runner_diffusers.pipelines.source import SourceClass

CLASS = "class"


def checked(given: Mapping[str, Any], own: str) -> dict[str, Any]:
    """The parameter as given, if its class and options exist; `own` is the class that the model has.

    Raises:
        ValueError: they do not; the message says which ones do.

    """
    name = given.get(CLASS, own)
    cls = _scheduler(name)
    accepted = calls.init_parameters(cls)
    for option, value in given.items():
        if option == CLASS:
            continue
        if option not in accepted:
            raise ValueError(f"option {option!r} is none of {cls.name}'s{_close(option, accepted)}")
        annotation = accepted[option].annotation
        kind = type_of(annotation) if annotation is not None else None
        if kind is not None:
            _check_type(cls.name, option, value, kind)
    return dict(given)


@cache
def names() -> tuple[str, ...]:
    """The schedulers that diffusers exports."""
    return tuple(name for name in source.exported() if name.endswith("Scheduler"))


def _scheduler(name: Any) -> SourceClass:
    if not isinstance(name, str) or not name:
        raise ValueError('class must be the name of a scheduler, such as "UniPCMultistepScheduler"')
    found = source.find(name) if name.isidentifier() else None
    if found is None or "SchedulerMixin" not in source.ancestors(found):
        raise ValueError(f"the installed diffusers has no scheduler {name!r}{_close(name, names())}")
    if missing := source.missing_packages(found.name):
        packages = " ".join(missing)
        raise ValueError(f"what {name} needs is not installed here: pip install {packages}")
    return found


def _check_type(scheduler: str, option: str, value: Any, kind: Any) -> None:
    try:
        TypeAdapter(kind).validate_python(value, strict=not isinstance(value, list))
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]["msg"].replace("Input should be", "must be")
        raise ValueError(f"{option} of {scheduler} {detail}, not {value!r}") from None


def _close(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""
