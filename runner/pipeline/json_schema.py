"""The JSON Schema of manifests, for editors: the tables, and the parameters of the installed stages.

It checks each value by itself. What depends on the whole manifest (duplicate names, the order of stages,
missing files) only `runner validate` checks.
"""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Any, get_args

from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from runner.declarations import LOCAL
from runner.manifest.params import names_of
from runner.manifest.schema import FILE_NAME, NAME_LIMIT, ManifestTable, Placement
from runner.manifest.sources import FOLDER, HUB_ID, LORA_WEIGHTS, PLUGIN, REVISION
from runner.pipeline.for_model import params_model
from runner.placements import ACCELERATOR_ONLY
from runner.plugins import load_object

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pydantic import BaseModel

    from runner.api import Executor, Output, Stage
    from runner.plugins import Plugins

DIALECT = "http://json-schema.org/draft-07/schema#"  # the newest that every editor's validator knows
_DEFINITION = "#/$defs/{}"

Schema = dict[str, Any]


def json_schema(plugins: Plugins) -> Schema:
    """The schema of a manifest whose stages are those of the installed plugins."""
    stages = {name: stage for name, (_plugin, stage) in sorted(plugins.stages().items())}
    executors = {one.name: one for plugin in plugins.loaded for one in plugin.executors}
    models = {name: model for name, stage in stages.items() if (model := _params(stage)) is not None}
    own = {name: load_object(one.params) for name, one in executors.items() if one.params}
    parameters, definitions = _definitions({**models, **own})
    root = definitions.pop(ManifestTable.__name__)
    for name, stage in stages.items():
        definitions[name] = _with(stage, parameters.get(name))
    _name_stages(definitions["StageTable"], stages)
    _name_executors(definitions["ExecutorTable"], executors, {name: parameters[name] for name in own})
    _add_what_is_checked_elsewhere(root, definitions)
    unknown = [name for name, stage in stages.items() if stage.params and name not in models]
    _add_shared(root, _shared(models, definitions), unknown)
    return {
        "$schema": DIALECT,
        "title": "A manifest of runner",
        "x-runner": stamp(plugins),
        **root,
        "$defs": definitions,
    }


def stamp(plugins: Plugins) -> dict[str, str]:
    """The distributions that the schema is made from, with their versions."""
    found = {plugin.distribution: plugin.version for plugin in plugins.loaded}
    return {"stage-runner": metadata.version("stage-runner"), **dict(sorted(found.items()))}


def _params(stage: Stage) -> type[BaseModel] | None:
    """The stage's model of its parameters; None if it has none, or none that has a schema without a model."""
    try:
        model = params_model(stage, None)
        if model is not None:
            model.model_json_schema()
    except Exception:  # the plugin's own, or pydantic's for types without a JSON Schema
        return None
    return model


class _Plain(GenerateJsonSchema):
    """Leaves out titles, which repeat the names."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002
        return False


def _definitions(models: Mapping[str, type[BaseModel]]) -> tuple[dict[str, Schema], dict[str, Schema]]:
    """Schemas of the parameters by stage, and the definitions that these and the tables refer to."""
    wanted: list[type[BaseModel]] = list(dict.fromkeys([ManifestTable, *models.values()]))
    places, made = models_json_schema(
        [(model, "validation") for model in wanted],
        ref_template=_DEFINITION.format("{model}"),
        schema_generator=_Plain,
    )
    definitions: dict[str, Schema] = _without_null(made["$defs"])
    names = {model: places[model, "validation"]["$ref"].rpartition("/")[2] for model in wanted}
    return {stage: definitions[names[model]] for stage, model in models.items()}, definitions


def _without_null(schema: Any) -> Any:
    """The schema without null, which TOML does not have: optional keys are left out instead."""
    if isinstance(schema, list):
        return [_without_null(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {name: _without_null(value) for name, value in schema.items() if name != "title"}
    if plain.get("default", "") is None:
        del plain["default"]
    choices = plain.get("anyOf", [])
    if {"type": "null"} in choices:
        rest = [choice for choice in choices if choice != {"type": "null"}]
        del plain["anyOf"]
        # beside a $ref, this dialect reads nothing else
        plain |= {"allOf": rest} if len(rest) == 1 and "$ref" in rest[0] else _any_of(rest)
    return plain


def _any_of(schemas: list[Schema]) -> Schema:
    different = [schema for n, schema in enumerate(schemas) if schema not in schemas[:n]]
    return different[0] if len(different) == 1 else {"anyOf": different}


def _with(stage: Stage, parameters: Schema | None) -> Schema:
    """The schema of ``[stage.with]``: nothing is required, since items may have it."""
    described = {"description": f"{stage.name}: {stage.summary}" if stage.summary else stage.name}
    if parameters is None:
        return {"type": "object", **described, **({} if stage.params else {"additionalProperties": False})}
    properties = parameters.get("properties", {})
    return {"type": "object", **described, "properties": properties, "additionalProperties": False}


def _name_stages(table: Schema, stages: Mapping[str, Stage]) -> None:
    """``uses`` is the name of an installed stage, and determines the schemas of ``with`` and ``from``."""
    uses = table["properties"]["uses"]
    uses["enum"] = list(stages)
    uses["x-taplo"] = {"docs": {"enumValues": [stage.summary for stage in stages.values()]}}
    table["allOf"] = [
        {
            "if": {"properties": {"uses": {"const": name}}, "required": ["uses"]},
            "then": {
                "properties": {"with": {"$ref": _DEFINITION.format(name)}, "from": _from(stage, stages)}
            },
        }
        for name, stage in stages.items()
    ]


def _name_executors(
    table: Schema, executors: Mapping[str, Executor], parameters: Mapping[str, Schema]
) -> None:
    """``uses`` is the name of an executor, and determines the other keys."""
    uses = table["properties"]["uses"]
    uses["enum"] = [LOCAL, *executors]
    uses["x-taplo"] = {"docs": {"enumValues": ["this machine", *(e.summary for e in executors.values())]}}
    del table["additionalProperties"]
    closed: Schema = {"properties": {"uses": True}, "additionalProperties": False}
    others: Schema = {"if": {"properties": {"uses": {"const": LOCAL}}}, "then": closed}
    table["allOf"] = [others]
    for name in executors:
        own = parameters.get(name, {"properties": {}})
        keys = {**closed, **own, "properties": {"uses": True, **own["properties"]}}
        is_it = {"properties": {"uses": {"const": name}}, "required": ["uses"]}
        table["allOf"].append({"if": is_it, "then": keys})


def _from(stage: Stage, stages: Mapping[str, Stage]) -> Schema:
    """The schema of ``[stage.from]``: an output of the input's kind, with or without its stage's name."""

    def takes(needed: Output) -> Schema:
        fitting = {o.name for other in stages.values() for o in other.outputs if type(o) is type(needed)}
        return {"type": "string", "pattern": rf"^([A-Za-z0-9_-]+\.)?({'|'.join(sorted(fitting))})$"}

    inputs = {needed.name: takes(needed) for needed in stage.inputs}
    return {"properties": inputs, "additionalProperties": False}


_LORA_WEIGHTS: Schema = {
    "type": "object",
    "additionalProperties": {"type": "number"},
    "description": "weights of its own for the adapters of [[lora]], by their names",
}
_ITEM_ID: Schema = {
    "type": "string",
    "pattern": FILE_NAME,
    "maxLength": NAME_LIMIT,
    "description": "names the output; made from the prompt and the seed, if left out",
}


def _shared(models: Mapping[str, type[BaseModel]], definitions: Mapping[str, Schema]) -> dict[str, Schema]:
    """The parameters of all stages, as ``[with]`` and ``[[item]]`` have them."""
    properties: dict[str, Schema] = {}
    declared = {name: set(names_of(model)) for name, model in models.items()}
    for field in sorted(set().union(*declared.values())):
        owners = [stage for stage, fields in declared.items() if field in fields]
        properties[field] = _any_of([definitions[stage]["properties"][field] for stage in owners])
    return properties


def _add_shared(root: Schema, shared: Mapping[str, Schema], unknown: Sequence[str]) -> None:
    """Add what items and ``[with]`` may hold, unless a stage has parameters that only its model tells."""
    of_items = {"id": _ITEM_ID, LORA_WEIGHTS: _LORA_WEIGHTS}
    root["properties"]["item"]["items"] = {"type": "object", "properties": of_items}
    of_all = {"type": "object", "additionalProperties": False}
    item = {**of_all, "properties": {**of_items, **shared}}
    known = {"item": {"items": item}, "with": {**of_all, "properties": shared}}
    uses_unknown = {"properties": {"uses": {"enum": [*unknown]}}, "required": ["uses"]}
    is_open = {"properties": {"stage": {"contains": uses_unknown}}} if unknown else False
    root["allOf"].append({"if": is_open, "else": {"properties": known}})


def _add_what_is_checked_elsewhere(root: Schema, definitions: Mapping[str, Schema]) -> None:
    """Add rules that the tables' models do not have, since other code checks them."""
    batch = definitions["Batch"]["properties"]
    batch["prompts"]["items"]["pattern"] = r"\S"
    batch["file"]["pattern"] = r"\.([tT][xX][tT]|[cC][sS][vV]|[jJ][sS][oO][nN][lL])$"
    packaged, folder = rf"{PLUGIN}[^/]+/(?!.*\.\.)", FOLDER.pattern
    model = definitions["ModelSource"]
    model["properties"]["source"]["pattern"] = rf"^({HUB_ID.pattern}$|{folder}|{packaged})"
    part = rf"{HUB_ID.pattern}(@{REVISION.pattern})?(:[^/].*)?$"
    model["properties"]["components"]["additionalProperties"]["pattern"] = rf"^({part}|{folder}|{packaged})"
    file = rf"{HUB_ID.pattern}(@{REVISION.pattern})?:[^/].*\.[sS][aA][fF][eE][tT][eE][nN][sS][oO][rR][sS]$"
    definitions["LoraTable"]["properties"]["source"]["pattern"] = rf"^({file}|{FOLDER.pattern})"
    on_hub = {"properties": {"source": {"pattern": rf"^{HUB_ID.pattern}$"}}}
    model |= {"if": on_hub, "else": {"properties": {"revision": False}}}
    root["allOf"] = list(_placements_on_the_cpu())


def _placements_on_the_cpu() -> Iterator[Schema]:
    """Rules for the CPU as device, by the stage's own budget or by ``[budget]``: no offloading placements."""
    allowed = [name for name in get_args(Placement) if name not in ACCELERATOR_ONLY]
    placed = {"properties": {"placement": {"enum": allowed}}}
    on_cpu = {
        "properties": {"budget": {"properties": {"device": {"const": "cpu"}}, "required": ["device"]}},
        "required": ["budget"],
    }
    says_device = {"properties": {"budget": {"required": ["device"]}}, "required": ["budget"]}

    def stages(rule: Schema) -> Schema:
        return {"properties": {"stage": {"items": rule}}}

    yield stages({"if": on_cpu, "then": placed})
    yield {"if": on_cpu, "then": stages({"if": {"not": says_device}, "then": placed})}
