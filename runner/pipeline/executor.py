"""The executor that a manifest chooses, with its parameters checked by the plugin's model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import ValidationError

from runner.declarations import LOCAL
from runner.errors import ExitCode, PluginError
from runner.manifest import params
from runner.manifest.explain import explain
from runner.manifest.params import RawParams
from runner.manifest.problems import did_you_mean
from runner.plugins import load_object

if TYPE_CHECKING:
    from pydantic import BaseModel

    from runner.api import Executor
    from runner.manifest.load import Manifest
    from runner.manifest.problems import Problems
    from runner.plugins import Plugins


@dataclass(frozen=True)
class ChosenExecutor:
    """An executor of a plugin, and its parameters: None if it has none."""

    spec: Executor
    params: BaseModel | None


def choose_executor(manifest: Manifest, plugins: Plugins, problems: Problems) -> ChosenExecutor | None:
    """The executor of ``[executor]``; None for this machine, or with a problem.

    Errors are added to ``problems``: an executor that no plugin offers, and parameters that it does not take.
    """
    table = manifest.table.executor
    try:
        spec = None if table.uses == LOCAL else plugins.executor(table.uses)
        model: type[BaseModel] | None = load_object(spec.params) if spec and spec.params else None
    except PluginError as error:
        problems.add(manifest.where("executor", "uses"), str(error), ExitCode.PLUGIN)
        return None
    names = params.names_of(model) if model else []
    unknown = [name for name in table.parameters if name not in names]
    for name in unknown:
        where = manifest.where("executor", name, key=True)
        code = ExitCode.USAGE if where.is_override else ExitCode.MANIFEST
        hint = did_you_mean(name, [*names, "uses"])
        problems.add(where, f"executor '{table.uses}' has no parameter '{name}'{hint}", code)
    if spec is None or model is None or unknown:
        return None if spec is None or unknown else ChosenExecutor(spec, None)
    try:
        return ChosenExecutor(spec, params.validate(model, RawParams(table.parameters)))
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            name = str(detail["loc"][0]) if detail["loc"] else "uses"
            is_set = name in table.parameters
            where = manifest.where("executor", *((name,) if is_set else ()))
            problems.add(where, f"executor '{table.uses}': {explain(detail, name=name)}")
        return None
