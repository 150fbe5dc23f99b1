"""Tables of the READMEs, made from the code: ``python docs/tables.py README.md`` writes them anew.

A table stands between ``<!-- begin: NAME -->`` and ``<!-- end: NAME -->``. With ``--check`` nothing is
written, and the exit code is 1 where one is not what the code says; ``make lint`` does that.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer.main

from runner.cli.app import app
from runner.errors import EXIT_MEANINGS
from runner.manifest.json_schema import json_schema
from runner.plugins import discover

if TYPE_CHECKING:
    from collections.abc import Iterator

MARKED = re.compile(r"(<!-- begin: (.+?) -->\n).*?(<!-- end: \2 -->)", re.DOTALL)
TABLES = {
    "[model]": "ModelSource",
    "[budget]": "Budget",
    "[[stage]]": "StageTable",
    "[batch]": "Batch",
    "[run]": "RunTable",
}

Rows = list[tuple[str, ...]]


def main(arguments: list[str]) -> int:
    check = "--check" in arguments
    stale = []
    for file in (Path(argument) for argument in arguments if argument != "--check"):
        old = file.read_text(encoding="utf-8")
        new = MARKED.sub(lambda match: f"{match[1]}{table(match[2])}{match[3]}", old)
        if new != old:
            stale.append(file)
            if not check:
                file.write_text(new, encoding="utf-8")
    for file in stale:
        told = "its tables are not what the code says; `make format` writes them" if check else "written"
        sys.stderr.write(f"{file}: {told}\n")
    return 1 if check and stale else 0


def table(name: str) -> str:
    """The rows of a table in Markdown."""
    kind, _, what = name.partition(" ")
    makers = {"commands": commands, "exit-codes": exit_codes, "settings": settings, "parameters": parameters}
    head, *rows = makers[kind](*([what] if what else []))
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n".replace("|  |", "| |") for cells in lines)


def commands() -> Rows:
    group: Any = typer.main.get_command(app)
    return [("command", "what it does"), *_commands("runner", group)]


def _commands(path: str, group: Any) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(f"{path} {name}", command)
            continue
        arguments = [p.metavar for p in command.params if p.param_type_name == "argument"]
        first = re.split(r"\.\s|\.$", " ".join(command.help.partition("\n\n")[0].split()))[0]
        yield f"`{' '.join([path, name, *arguments])}`", first[:1].lower() + first[1:]


def exit_codes() -> Rows:
    return [("exit code", ""), *((str(int(code)), meaning) for code, meaning in EXIT_MEANINGS.items())]


def settings() -> Rows:
    """Of the manifest's own tables; what plugins own is in their READMEs."""
    schema = json_schema(discover())
    places = {"": schema, **{where: schema["$defs"][name] for where, name in TABLES.items()}}
    rows = [
        (f"`{f'{where} {name}'.strip()}`", *_told(setting))
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
        (f"`{name}`", f"`{stage}`", *_told(setting))
        for stage, with_ in stages.items()
        for name, setting in with_["properties"].items()
    ]
    return [("parameter", "stage", "default", "meaning"), *rows]


def _told(setting: dict[str, Any]) -> tuple[str, str]:
    """The default, and what it means and may be."""
    default = f"`{json.dumps(setting['default'])}`" if setting.get("default", {}) != {} else ""
    meaning = setting.get("description", "").replace("|", "/")
    choices = (
        setting.get("enum", []) if "x-taplo" not in setting else []
    )  # which stages there are, others know
    if not all(choice in meaning for choice in choices):
        meaning = f"{meaning}: {', '.join(choices)}"
    return default, meaning


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
