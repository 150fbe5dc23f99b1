"""The generated parts of the documents: ``python docs/tables.py docs/commands.md`` writes them anew.

A part stands between ``<!-- begin: NAME -->`` and ``<!-- end: NAME -->``. With ``--check`` nothing is
written, and the exit code is 1 where one is not what the code says; ``make lint`` does that.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import typer.main

from runner.cli.app import app
from runner.errors import EXIT_MEANINGS
from runner.events import PUBLISHED
from runner.pipeline.json_schema import json_schema
from runner.plugins import discover

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runner.events import Event

MARKED = re.compile(r"(<!-- begin: (.+?) -->\n).*?(<!-- end: \2 -->)", re.DOTALL)
TABLES = {
    "[model]": "ModelSource",
    "[budget]": "Budget",
    "[[stage]]": "StageTable",
    "[[lora]]": "LoraTable",
    "[batch]": "Batch",
    "[run]": "RunTable",
    "[executor]": "ExecutorTable",
}

Rows = list[tuple[str, ...]]


def main(arguments: list[str]) -> int:
    check = "--check" in arguments
    stale = []
    for file in (Path(argument) for argument in arguments if argument != "--check"):
        old = file.read_text(encoding="utf-8")
        new = MARKED.sub(lambda match: f"{match[1]}{generate(match[2])}{match[3]}", old)
        if new != old:
            stale.append(file)
            if not check:
                file.write_text(new, encoding="utf-8")
    for file in stale:
        state = "not what the code says; `make format` writes it" if check else "written"
        sys.stderr.write(f"{file}: {state}\n")
    return 1 if check and stale else 0


def generate(name: str) -> str:
    """The Markdown of a part."""
    kind, _, what = name.partition(" ")
    if kind == "options":
        return "".join(f"{section}\n" for section in options())
    makers: dict[str, Callable[..., Rows]] = {
        "commands": commands,
        "events": events,
        "exit-codes": exit_codes,
        "settings": settings,
        "parameters": parameters,
    }
    return table(makers[kind](*([what] if what else [])))


def table(rows: Rows) -> str:
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "".join(f"| {' | '.join(cells)} |\n".replace("|  |", "| |") for cells in lines)


def commands() -> Rows:
    return [
        ("command", "what it does"),
        *((f"`{synopsis(path, command)}`", first_sentence(command)) for path, command in all_commands()),
    ]


def all_commands(path: str = "runner", group: Any = None) -> Iterator[tuple[str, Any]]:
    """Every command with the words that call it."""
    group = group or cast("Any", typer.main.get_command(app))
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from all_commands(f"{path} {name}", command)
        else:
            yield f"{path} {name}", command


def synopsis(path: str, command: Any) -> str:
    return " ".join([path, *(argument(p) for p in command.params if p.param_type_name == "argument")])


def argument(parameter: Any) -> str:
    name = parameter.metavar if parameter.nargs == 1 else f"{parameter.metavar.removesuffix('...')}..."
    return name if parameter.required else f"[{name}]"


def first_sentence(command: Any) -> str:
    first = re.split(r"\.\s|\.$", " ".join(command.help.partition("\n\n")[0].split()))[0]
    return first[:1].lower() + first[1:]


def options() -> Iterator[str]:
    """A section a command: what it does, an example, its arguments and options."""
    for path, command in all_commands():
        *text, example = (" ".join(paragraph.split()) for paragraph in command.help.split("\n\n"))
        yield f"### `{synopsis(path, command)}`\n"
        yield from (f"{paragraph}\n" for paragraph in text)
        yield f"Example: `{example.removeprefix('Example: ')}`\n"
        yield table([("option", ""), *map(option, command.params)])


def option(parameter: Any) -> tuple[str, ...]:
    if parameter.param_type_name == "argument":
        return f"`{argument(parameter)}`", parameter.help
    takes = "" if parameter.is_flag else f" {parameter.metavar}"
    default = parameter.default
    shown = f" Default: `{default}`." if default not in (None, False, "") and not callable(default) else ""
    return f"`{', '.join(parameter.opts)}{takes}`", f"{parameter.help}{shown}"


def events() -> Rows:
    return [
        ("event", "fields", "meaning"),
        *((f"`{kind.event}`", f"`{' '.join(field_names(kind))}`", meaning(kind)) for kind in PUBLISHED),
    ]


def field_names(event: type[Event]) -> list[str]:
    return [field.name for field in fields(event) if field.name != "time"]


def meaning(event: type[Event]) -> str:
    first = (inspect.getdoc(event) or "").partition("\n\n")[0]
    return " ".join(first.replace("``", "`").split())


def exit_codes() -> Rows:
    return [("exit code", ""), *((str(int(code)), meaning) for code, meaning in EXIT_MEANINGS.items())]


def settings() -> Rows:
    """Of the manifest's own tables; those of plugins are made by :func:`parameters`."""
    schema = json_schema(discover())
    places = {"": schema, **{where: schema["$defs"][name] for where, name in TABLES.items()}}
    rows = [
        (f"`{f'{where} {name}'.strip()}`", *default_and_meaning(setting))
        for where, definition in places.items()
        for name, setting in definition["properties"].items()
        if where or "description" in setting
    ]
    return [("setting", "default", "meaning"), *rows]


def parameters(plugin: str) -> Rows:
    """Of a plugin's stages: what ``[stage.with]`` and items may set."""
    schema = json_schema(discover())
    stages = {name: with_ for name, with_ in schema["$defs"].items() if name.startswith(f"{plugin}.")}
    rows = [
        (f"`{name}`", f"`{stage}`", *default_and_meaning(setting))
        for stage, with_ in stages.items()
        for name, setting in with_["properties"].items()
    ]
    return [("parameter", "stage", "default", "meaning"), *rows]


def default_and_meaning(setting: dict[str, Any]) -> tuple[str, str]:
    """The default of a setting, and what it means and may be."""
    default = f"`{json.dumps(setting['default'])}`" if setting.get("default", {}) != {} else ""
    meaning = setting.get("description", "").replace("|", "/")
    # the names of stages, which taplo completes, depend on the installed plugins
    choices = setting.get("enum", []) if "x-taplo" not in setting else []
    if not all(choice in meaning for choice in choices):
        meaning = f"{meaning}: {', '.join(choices)}"
    return default, meaning


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
