"""``runner explain``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from runner.cli import completion
from runner.cli.options import RUNS, Fresh, Json, Manifest, Prompts, RunsDir, Sets
from runner.cli.output import console, print_json
from runner.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.work.differences import Difference
    from runner.work.explain import Explanation

STAGE_WIDTH = 12  # columns


def explain(
    manifest: Manifest,
    item: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--item", metavar="ID", help="Only this item.", autocompletion=completion.items),
    ] = None,
    stage: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--stage", metavar="STAGE", help="Only this stage.", autocompletion=completion.stages),
    ] = None,
    sets: Sets = None,
    prompts: Prompts = None,
    fresh: Fresh = None,
    runs_dir: RunsDir = RUNS,
    as_json: Json = False,
) -> int:
    """Show for each item and stage why it would run or not, and what changed since. Writes nothing.

    Example: runner explain demo.toml --set stage.diffuse.with.steps=28
    """
    from runner.cli.pipelines import open_pipeline
    from runner.work.demand import forced_stages
    from runner.work.explain import Explainer
    from runner.work.models import resolve_models
    from runner.work.work import run_directory

    pipeline = open_pipeline(manifest, sets or [], prompts or [])
    items = _chosen("item", item, [one.id for one in pipeline.items])
    names = _chosen("stage", stage, [one.name for one in pipeline.stages])
    stages = [one for one in pipeline.stages if one.name in names]
    directory = run_directory(pipeline, runs_dir)
    explainer = Explainer(resolve_models(pipeline), directory, forced_stages(pipeline, fresh))
    explained = {id_: [explainer.explain(id_, one) for one in stages] for id_ in items}
    if as_json:
        found = [{"item": id_, "stages": list(map(_as_json, many))} for id_, many in explained.items()]
        print_json({"name": pipeline.manifest.table.name, "items": found})
    else:
        _show(explained, pending=explainer.pending)
    return ExitCode.DONE


def _chosen(kind: str, name: str | None, known: Sequence[str]) -> Sequence[str]:
    """The one that is named; all, if none is.

    Raises:
        UsageError: it is not known.

    """
    from runner.manifest.problems import did_you_mean

    if name is None:
        return known
    if name not in known:
        raise UsageError(f"--{kind} {name}: there is no such {kind}{did_you_mean(name, known)}")
    return [name]


def _show(explained: dict[str, list[Explanation]], *, pending: bool) -> None:
    shown = console()
    for item, stages in explained.items():
        shown.print(item, style="bold")
        for one in stages:
            shown.print(f"  {one.stage:<{STAGE_WIDTH}} {_line(one)}")
            for line in _changes(one.differences):
                shown.print(f"  {'':<{STAGE_WIDTH}}   {line}")
    if pending:
        shown.print("pending: a model is not here, or not hashed yet; a run fetches and hashes first")


def _line(one: Explanation) -> str:
    """``to make: not made yet; nearest is 9f8e7d6c of fox-7:``."""
    from runner.rundir.directory import KEY_IN_NAME
    from runner.work.explain import THERE

    line = f"{one.state}: {one.reason}" if one.reason else one.state
    if one.against is not None:
        other = f" of {one.against.item}" if one.against.item != one.item else ""
        line += f"; nearest is {one.against.key[:KEY_IN_NAME]}{other}"
        line += ":" if one.differences else ", with no known difference"
    elif one.state == THERE and one.differences:
        line += ", made with other versions:"
    return line


def _changes(differences: Sequence[Difference]) -> list[str]:
    """A line per difference; inputs from the same hand-off share one."""
    inputs: dict[str, list[str]] = {}
    lines = []
    for one in differences:
        name, _, change = str(one).partition(": ")
        if one.part[0] == "inputs":
            inputs.setdefault(change, []).append(name.removeprefix("input "))
        else:
            lines.append(str(one))
    return [*lines, *(f"input {', '.join(names)}: {change}" for change, names in inputs.items())]


def _as_json(one: Explanation) -> dict[str, Any]:
    return {
        "stage": one.stage,
        "key": one.key,
        "state": one.state,
        "reason": one.reason or None,
        "against": {"item": one.against.item, "key": one.against.key} if one.against else None,
        "differences": [difference.as_dict() for difference in one.differences],
    }
