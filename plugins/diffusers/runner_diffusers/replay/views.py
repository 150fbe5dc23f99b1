"""Views of a pipeline's components: an item's own objects that share weights, and report each call."""

from __future__ import annotations

import copy
from functools import cache, partial, wraps
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    OnCall = Callable[[str, str, "Arguments"], Any]
    """Receives the component's name, the method's, and the call; returns what the pipeline gets."""

METHODS = (
    "__call__",
    "encode",
    "_encode",
    "quantize",
    "decode",
    "_decode",
    "generate",
    "get_text_features",
    "get_image_features",
    "encode_video",
    "decode_to_image",
    "decode_to_mesh",
    "check_video_safety",
    "apply_watermark",
)
"""Methods that compute with a component's weights and that pipelines call."""


ON_CALL = "_on_call_of_view"
"""The attribute of a view with what its calls are reported to."""
BODIES = ("model", "language_model", "text_model", "vision_model", "vision_tower", "visual")
"""Parts of encoders that pipelines call in place of the whole."""


def view(
    module: torch.nn.Module, name: str, methods: frozenset[str], device: torch.device, on_call: OnCall
) -> torch.nn.Module:
    """An item's own view of a component, which shares its weights; calls of ``methods`` are reported too.

    Attributes that are set on it are its own: some VAEs keep the state of a call on themselves. Those of
    transformers' models are the shared module's too: they say which hooks its layers have, which all views
    share. The calls of its `BODIES` are reported as its own.
    """
    viewed = copy.copy(module)
    viewed.__dict__["_shared"] = module
    viewed.__dict__["_device_of_view"] = device
    viewed.__dict__[ON_CALL] = partial(on_call, name)
    cls: Any = type(module)
    viewed.__class__ = _viewed(cls, methods)
    for part, body in module.named_children():
        if part in BODIES:
            viewed.__dict__[part] = view(body, name, methods, device, on_call)
    return viewed


@cache
def _viewed(cls: Any, methods: frozenset[str]) -> Any:
    device = property(lambda self: self.__dict__["_device_of_view"])
    body: dict[str, Any] = {"device": device, "to": _to}
    if cls.__module__.partition(".")[0] == "transformers":
        body["__setattr__"] = _set_on_both
    return reporting_class(cls, methods, ON_CALL, **body)


def reporting_class(cls: Any, methods: frozenset[str], attribute: str, **body: Any) -> Any:
    """Make a subclass of a model's class that hands calls of some methods to a function, and runs none.

    The methods are those of `METHODS` and ``methods``; the function is what an object has as ``attribute``.
    It receives the method's name and an :class:`Arguments`, which runs the method where it is called. What
    the function returns is what the caller of the method gets. ``body`` has more attributes of the subclass.
    The subclass has the name and the module of its base class, as libraries compare these.
    """
    named = [name for name in (*METHODS, *sorted(methods)) if hasattr(cls, name)]
    reporting = {name: _reporting(getattr(cls, name), name, attribute) for name in named}
    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
    return type(cls.__name__, (cls,), {**reporting, **body, **names})


def _set_on_both(self: Any, name: str, value: Any) -> None:
    torch.nn.Module.__setattr__(self, name, value)
    setattr(self.__dict__["_shared"], name, value)


def _reporting(method: Callable[..., Any], name: str, attribute: str) -> Callable[..., Any]:
    @wraps(method)
    def called(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self.__dict__[attribute](name, Arguments(self, method, args, kwargs))

    return called


class Arguments:
    """A call of a component's method: what it is called with, and the call itself."""

    def __init__(
        self, owner: Any, method: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        self.owner = owner
        self.args = args
        self.kwargs = kwargs
        self._call = partial(method, owner)

    @property
    def latents(self) -> torch.Tensor | None:
        """The first tensor that it is called with."""
        given = (*self.args, *self.kwargs.values())
        return next((value for value in given if isinstance(value, torch.Tensor)), None)

    def __call__(self) -> Any:
        """What the component itself returns."""
        return self._call(*self.args, **self.kwargs)


def _to(self: Any, *args: Any, **kwargs: Any) -> Any:
    """Cast a component that the pipeline itself casts; it stays on its device.

    SDXL's VAE is cast to float32 while it computes, if its config says so.

    Raises:
        RuntimeError: its weights are offloaded, and cannot be cast in place.

    """
    dtype = kwargs.get("dtype") or next((one for one in args if isinstance(one, torch.dtype)), None)
    weights = [weight for weight in self.parameters() if weight.is_floating_point()]
    if dtype is None or all(weight.is_meta or weight.dtype == dtype for weight in weights):
        return self
    if any(type(weight) is not torch.nn.Parameter for weight in weights):
        raise RuntimeError(
            f"this pipeline casts its {type(self).__name__} to {dtype} while it runs, which offloaded "
            'weights do not allow: set placement = "resident", or dtype = "float32", for this stage'
        )
    for cls in type(self).__mro__[1:]:
        if "to" in vars(cls):
            return vars(cls)["to"](self, dtype)
    raise AssertionError("torch.nn.Module has it")
