"""The order of the rooms: imports run one way, from the command down to the API, and in no circle."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLOORS: tuple[tuple[str, ...], ...] = (
    ("api", "events", "placements", "redact", "units"),
    ("declarations", "errors", "hookspecs"),
    ("accelerator", "files", "plugins"),
    ("machine", "manifest", "rundir"),
    ("model", "pipeline", "report"),
    ("plan", "protocol", "stream", "work"),
    ("placement", "supervisor", "tailor"),
    ("remote", "reproduce", "worker"),
    ("plugin_check",),
    ("cli", "testing"),
)
"""From the bottom up: a room imports from lower floors and from its own."""
HEIGHT = {room: n for n, rooms in enumerate(FLOORS) for room in rooms}
TORCH = {"worker", "placement", "stream", "plugin_check"}  # the last in the process that it starts alone


BACKENDS = "runner.accelerator.backends"  # the rest of its room is the supervisor's as well
LIVE_BYTES = "runner.api.live_bytes"  # for functions that measure, in processes of their own


def modules() -> dict[str, ast.Module]:
    found = {}
    for path in sorted((ROOT / "runner").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


MODULES = modules()


def imported(name: str, tree: ast.Module) -> set[str]:
    """The modules of runner that one imports, for types alone or in functions too."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            members = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {member for member in members if member in MODULES} or {node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {one for one in found if one in MODULES and one not in ("runner", name)}


def room_of(module: str) -> str:
    return module.split(".")[1]


@pytest.mark.parametrize("name", [name for name in MODULES if name not in ("runner", "runner.__main__")])
def test_imports_run_down(name: str) -> None:
    height = HEIGHT[room_of(name)]
    above = {other for other in imported(name, MODULES[name]) if HEIGHT[room_of(other)] > height}
    assert not above


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {name: imported(name, tree) for name, tree in MODULES.items()}
    TopologicalSorter(graph).prepare()


def test_every_room_has_a_floor() -> None:
    assert {room_of(name) for name in MODULES if name not in ("runner", "runner.__main__")} == HEIGHT.keys()


def test_only_the_workers_side_imports_torch_when_it_is_imported() -> None:
    heavy = {"torch", "diffusers", "transformers", "accelerate", "greenlet"}
    for name, tree in MODULES.items():
        if (
            name in ("runner", "runner.__main__")
            or room_of(name) in TORCH
            or name.startswith((BACKENDS, LIVE_BYTES))
        ):
            continue
        tops = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        names = {alias.name for node in tops if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module or "" for node in tops if isinstance(node, ast.ImportFrom)}
        assert not {one.partition(".")[0] for one in names} & heavy, name
