"""Completions for shells: manifests, stages, keys of ``--set``, plugins, runs. Imports in functions."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel

Context = typer.Context
RUNS = Path("runs")
"""Where run directories are kept by default."""


def manifests(incomplete: str) -> list[str]:
    """TOML files and folders."""
    folder, _, begun = incomplete.rpartition("/")
    base = Path(f"{folder}/") if folder or incomplete.startswith("/") else Path()
    with contextlib.suppress(OSError):
        found = [p for p in sorted(base.expanduser().iterdir()) if p.name.startswith(begun or "")]
        shown = [p for p in found if (p.is_dir() or p.suffix == ".toml") and not p.name.startswith(".")]
        return [f"{incomplete[: len(incomplete) - len(begun)]}{p.name}{'/' * p.is_dir()}" for p in shown]
    return []


def stages(ctx: Context, incomplete: str) -> list[str]:
    """Names of the manifest's stages."""
    named = [stage.get("name") for stage in _tables(ctx).get("stage", []) if isinstance(stage, dict)]
    return [name for name in named if isinstance(name, str) and name.startswith(incomplete)]


def items(ctx: Context, incomplete: str) -> list[str]:
    """Ids of the manifest's items."""
    from runner.errors import RunnerError
    from runner.manifest.items import expand
    from runner.manifest.load import load
    from runner.manifest.problems import Problems

    with contextlib.suppress(RunnerError):
        found = expand(load(_manifest(ctx)), Problems())
        return [item.id for item in found if item.id.startswith(incomplete)]
    return []


def plugins(incomplete: str) -> list[str]:
    """Names of the installed plugins; broken ones too, for ``plugins check``."""
    from runner.plugins import discover

    found = discover()
    names = {*(plugin.name for plugin in found.loaded), *(plugin.name for plugin in found.broken)}
    return sorted(name for name in names if name.startswith(incomplete))


def executors(incomplete: str) -> list[str]:
    """Names of executors: this machine, and those of the installed plugins."""
    from runner.declarations import LOCAL
    from runner.plugins import discover

    names = [LOCAL, *(one.name for plugin in discover().loaded for one in plugin.executors)]
    return sorted(name for name in names if name.startswith(incomplete))


def installed_stages(incomplete: str) -> list[str]:
    """Names of the stages that plugins offer."""
    from runner.plugins import discover

    return sorted(name for name in discover().stages() if name.startswith(incomplete))


def runs(ctx: Context, incomplete: str) -> list[str]:
    """Names of runs, without those that are on the command line already."""
    from runner.cli.run_states import find_directories

    folder = Path(ctx.params.get("runs_dir") or RUNS)
    given = ctx.params.get("names") or ()
    with contextlib.suppress(OSError):
        names = [directory.path.name for directory in find_directories(folder)]
        return [name for name in names if name.startswith(incomplete) and name not in given]
    return []


def settings(ctx: Context, incomplete: str) -> list[str]:
    """``KEY=VALUE`` for ``--set``, with the present values."""
    tables = _tables(ctx)
    return [found for found in _settings(tables) if found.startswith(incomplete)] if tables else []


def _settings(tables: dict[str, Any]) -> Iterator[str]:
    from runner.errors import RunnerError
    from runner.manifest import schema
    from runner.pipeline.for_model import params_model
    from runner.plugins import discover

    for name, table in (("budget", schema.Budget), ("model", schema.ModelSource), ("run", schema.RunTable)):
        yield from _of(name, table, tables.get(name))
    installed, shared = discover(), tables.get("with")
    shared = shared if isinstance(shared, dict) else {}
    offered: dict[str, None] = {}
    for stage in tables.get("stage", []):
        path = f"stage.{stage.get('name')}"
        yield from (
            key for key in _of(path, schema.StageTable, stage) if not key.startswith(_no_values(path))
        )
        with contextlib.suppress(RunnerError):
            spec = installed.stage(str(stage.get("uses")))
            if model := params_model(spec, None):
                own = stage.get("with")
                yield from _of(f"{path}.with", model, {**shared, **(own if isinstance(own, dict) else {})})
                offered |= dict.fromkeys(_of("with", model, shared))
    yield from offered


def _no_values(path: str) -> tuple[str, ...]:
    """The keys of a stage that ``--set`` does not set: its names, and tables."""
    return tuple(f"{path}.{name}=" for name in ("name", "uses", "budget", "model", "device_map"))


def _of(path: str, model: type[BaseModel], given: Any) -> Iterator[str]:
    """``KEY=VALUE`` of one table without its sub-tables: the given value, or else the default."""
    from runner.manifest.params import canonical, names_of

    values = {**canonical(model.model_construct()), **(given if isinstance(given, dict) else {})}
    for name in names_of(model):
        value = values.get(name)
        if isinstance(value, dict):
            continue
        shown = str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)
        yield f"{path}.{name}={'' if ' ' in shown else shown}"


def _tables(ctx: Context) -> dict[str, Any]:
    """The tables of the manifest on the command line; empty if it cannot be read."""
    import tomli

    with contextlib.suppress(OSError, ValueError):
        return tomli.loads(_manifest(ctx).read_text(encoding="utf-8"))
    return {}


def _manifest(ctx: Context) -> Path:
    """The first manifest on the command line. While an option is incomplete, click has it in ``args``."""
    named = ctx.params.get("manifest") or ctx.params.get("manifests") or ctx.args
    return Path(next(iter(named), "")) if isinstance(named, list | tuple) else Path(str(named))
