"""What a single file says its denoiser predicts: the config of its scheduler is elsewhere, and must agree."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from runner.model.shapes import ComponentShapes

V = "v_prediction"
DENOISERS = ("unet", "transformer")
MARKS = ("v_pred", "edm_vpred.sigma_max")
"""Names of tensors that mark such files, as ComfyUI reads them."""
METADATA = "modelspec.prediction_type"
DEFAULT = "epsilon"
"""What schedulers of diffusers expect whose config says nothing, but for those of flow matching."""


def prediction_of(component: str, tensors: Collection[str], metadata: Mapping[str, str]) -> str:
    """What a file says that a component predicts, as schedulers name it; empty if it says nothing."""
    is_marked = any(mark in tensors for mark in MARKS) or metadata.get(METADATA) in ("v", V)
    return V if is_marked and component in DENOISERS else ""


def prediction_problem(shapes: Sequence[ComponentShapes]) -> tuple[str, str]:
    """A stage's component that predicts what its scheduler does not expect, and a message; or empty texts."""
    for one in shapes:
        for scheduler in shapes if one.prediction else ():
            expected = _expected(scheduler)
            if expected not in ("", one.prediction):
                is_said = "prediction_type" in scheduler.settings
                says = expected if is_said else f"nothing, which means {expected}"
                return one.component.name, (
                    f"component '{one.component.name}': its file says that it is for {one.prediction}, and "
                    f"the config of '{scheduler.component.name}' says {says}: pictures would be noise; "
                    f'give the stage a scheduler with prediction_type = "{one.prediction}"'
                )
    return "", ""


def _expected(scheduler: ComponentShapes) -> str:
    """The prediction that a scheduler expects; empty for flow matching, and for any other component."""
    cls = str(scheduler.settings.get("_class_name", ""))
    if not cls.endswith("Scheduler") or cls.startswith("FlowMatch"):
        return ""
    return str(scheduler.settings.get("prediction_type", DEFAULT))
