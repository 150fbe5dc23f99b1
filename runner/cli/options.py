"""Arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from runner.cli import completion
from runner.cli.completion import RUNS as RUNS  # noqa: PLC0414 - commands have it from here

Manifest = Annotated[
    Path,
    typer.Argument(
        metavar="MANIFEST", help="The manifest, a TOML file.", autocompletion=completion.manifests
    ),
]
Manifests = Annotated[
    list[Path],
    typer.Argument(
        metavar="MANIFEST...",
        help="Manifests, or quoted patterns that match some; they run in this order.",
        autocompletion=completion.manifests,
    ),
]
Sets = Annotated[
    Optional[list[str]],  # noqa: UP045 - typer before 0.16 reads no `list[str] | None` here
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a value, such as stage.diffuse.with.steps=4 or budget.vram=6GiB. May be repeated.",
        autocompletion=completion.settings,
    ),
]
Prompts = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--prompt", metavar="TEXT", help="Use this prompt in place of the batch. May be repeated."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")]
RunsDir = Annotated[Path, typer.Option("--runs-dir", metavar="DIR", help="Where run directories are kept.")]
Fresh = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--fresh",
        metavar="[STAGE]",
        help="Make outputs again even if they exist: all, or those from STAGE on.",
        autocompletion=completion.stages,
    ),
]
Executor = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--executor",
        metavar="NAME",
        help="Who runs the stages, in place of the manifest's [executor]: local, or a plugin's, as ray.",
        autocompletion=completion.executors,
    ),
]
Vram = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--vram", metavar="SIZE", help="Device memory that a stage may use, such as 8GiB."),
]
Ram = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--ram", metavar="SIZE", help="RAM that a stage may use, such as 30GiB."),
]
Device = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--device", metavar="DEVICE", help="auto, cpu, cuda[:N], xpu[:N], mps or sim[:N]."),
]
Out = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--output", "-o", metavar="FILE", help="Write it there; by default to stdout."),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite a file that exists.")]
