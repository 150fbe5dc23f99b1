"""``runner explain``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runner.cli.common import Options, console, open_pipeline, print_json
from runner.errors import ExitCode, UsageError
from runner.manifest.problems import did_you_mean
from runner.rundir.directory import KEY_IN_NAME
from runner.work.explain import THERE, Explainer, Explanation
from runner.work.models import assemble, forced_stages, run_directory

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from runner.work.differences import Difference

NAMES = 12  # columns


def explain(manifest: Path, options: Options, item: str | None, stage: str | None) -> int:
    """Say of each item (or one) at each stage (or one) why it would run or not. Writes and hashes nothing.

    Raises:
        UsageError: there is no such item or stage.
        RunnerError: what is wrong with the manifest or its models.

    """
    pipeline = open_pipeline(manifest, options)
    items = _chosen("item", item, [one.id for one in pipeline.items])
    names = _chosen("stage", stage, [one.name for one in pipeline.stages])
    stages = [one for one in pipeline.stages if one.name in names]
    directory = run_directory(pipeline, options.runs_dir)
    explainer = Explainer(assemble(pipeline), directory, forced_stages(pipeline, options.fresh))
    explained = {id_: [explainer.explain(id_, one) for one in stages] for id_ in items}
    if options.as_json:
        told = [{"item": id_, "stages": [_as_dict(one) for one in many]} for id_, many in explained.items()]
        print_json({"name": pipeline.manifest.table.name, "items": told})
    else:
        _show(explained, pending=explainer.pending)
    return ExitCode.DONE


def _chosen(what: str, wanted: str | None, known: Sequence[str]) -> Sequence[str]:
    if wanted is None:
        return known
    if wanted not in known:
        raise UsageError(f"--{what} {wanted}: there is no such {what}{did_you_mean(wanted, known)}")
    return [wanted]


def _show(explained: dict[str, list[Explanation]], *, pending: bool) -> None:
    shown = console()
    for item, stages in explained.items():
        shown.print(item, style="bold")
        for one in stages:
            shown.print(f"  {one.stage:<{NAMES}} {_line(one)}")
            for line in _changes(one.differences):
                shown.print(f"  {'':<{NAMES}}   {line}")
    if pending:
        shown.print("pending: a model is not here, or not hashed yet; a run fetches and hashes first")


def _line(one: Explanation) -> str:
    """``to make: not made yet; nearest is 9f8e7d6c of fox-7:``."""
    line = f"{one.state}: {one.reason}" if one.reason else one.state
    if one.against is not None:
        other = f" of {one.against.item}" if one.against.item != one.item else ""
        line += f"; nearest is {one.against.key[:KEY_IN_NAME]}{other}"
        line += ":" if one.differences else ", with no difference that is known of"
    elif one.state == THERE and one.differences:
        line += ", made with other versions:"
    return line


def _changes(differences: Sequence[Difference]) -> list[str]:
    """A line for each difference; inputs that come from the same hand-off share one."""
    inputs: dict[str, list[str]] = {}
    lines = []
    for one in differences:
        name, _, change = str(one).partition(": ")
        if one.part[0] == "inputs":
            inputs.setdefault(change, []).append(name.removeprefix("input "))
        else:
            lines.append(str(one))
    return [*lines, *(f"input {', '.join(names)}: {change}" for change, names in inputs.items())]


def _as_dict(one: Explanation) -> dict[str, Any]:
    against = {"item": one.against.item, "key": one.against.key} if one.against else None
    return {
        "stage": one.stage,
        "key": one.key,
        "state": one.state,
        "reason": one.reason or None,
        "against": against,
        "differences": [difference.as_dict() for difference in one.differences],
    }
