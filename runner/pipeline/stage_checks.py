"""Checks a stage's table against what the plugin declares, before any model is looked at."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from runner.accelerator.names import TIER, TIER_CHOICES
from runner.declarations import DeclarationError, check_suffix_parameters
from runner.errors import ExitCode
from runner.manifest.params import names_of
from runner.manifest.problems import did_you_mean
from runner.model.quantised import TORCHAO, missing
from runner.pipeline.model_sources import check_buffers, check_sources
from runner.placements import ACCELERATOR_ONLY

if TYPE_CHECKING:
    from runner.manifest.load import Manifest
    from runner.manifest.problems import Problems
    from runner.pipeline.stage import PipelineStage


def check_stage(manifest: Manifest, stage: PipelineStage, problems: Problems) -> None:
    """Add a problem for each setting of a stage that it cannot have."""
    n = stage.index
    if stage.components and stage.model is None:
        message = f"stage '{stage.name}' loads weights: give a [model] source for them"
        problems.add(manifest.where("stage", n), message)
    else:
        check_sources(manifest, n, problems)
    placement, place = stage.table.placement, manifest.where("stage", n, "placement")
    if placement in ACCELERATOR_ONLY and stage.budget.device == "cpu":
        problems.add(place, f"placement '{placement}' needs an accelerator, and the device is cpu")
    for name, tier in (stage.table.device_map or {}).items():
        if not (isinstance(tier, int) and tier >= 0) and not re.fullmatch(TIER, str(tier)):
            where = manifest.where("stage", n, "device_map", name)
            problems.add(where, f"'{name}' is placed on {tier!r}; there are: {TIER_CHOICES}")
    _check_suffix_parameters(manifest, stage, problems)
    _check_quantize(manifest, stage, problems)
    check_buffers(manifest, stage, problems)
    if placement in ACCELERATOR_ONLY and stage.table.device_map is not None:
        message = f"placement '{placement}' and a device_map exclude each other: remove one"
        problems.add(manifest.where("stage", n, "device_map", key=True), message)


def _check_quantize(manifest: Manifest, stage: PipelineStage, problems: Problems) -> None:
    """Check that ``quantize`` names components of the stage, and that torchao is installed."""
    if stage.table.quantize is None:
        return
    known = [component.name for component in stage.components if not component.config_only]
    path = ("stage", stage.index, "quantize")
    for name in stage.quantize if isinstance(stage.table.quantize, dict) else ():
        if name not in known:
            hint = did_you_mean(name, known) or f" (it loads: {', '.join(known) or 'none'})"
            problems.add(
                manifest.where(*path, name, key=True), f"the stage loads no component '{name}'{hint}"
            )
    if lacking := missing(TORCHAO):
        problems.add(manifest.where(*path), f"`quantize` is done by {lacking}", ExitCode.PLUGIN)


def _check_suffix_parameters(manifest: Manifest, stage: PipelineStage, problems: Problems) -> None:
    """Check that parameters that give suffixes are the stage's, and that no earlier stage makes them."""
    where = manifest.where("stage", stage.index, "uses")
    try:
        check_suffix_parameters(stage.spec, names_of(stage.params) if stage.params else ())
    except DeclarationError as error:
        problems.add(where, str(error), ExitCode.PLUGIN)
    for name in stage.suffix_parameters:
        if name in stage.wires:
            maker = manifest.table.stage[stage.wires[name].stage].name
            problems.add(
                where, f"'{name}' is the extension of a file, and stage '{maker}' makes it as it runs"
            )
