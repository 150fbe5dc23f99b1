"""Commands that write: manifests for other hardware, a schema, a picture again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from runner.cli.options import Device, Force, Json, Manifest, Out, Ram, Sets, Vram
from runner.cli.typer_app import App

commands = App()


@commands.command()
def new(
    vram: Vram = None,
    ram: Ram = None,
    device: Device = None,
    model: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--model",
            metavar="MODEL",
            help="A hub id, a folder starting with . / or ~, or plugin:NAME/FOLDER; else the template's own.",
        ),
    ] = None,
    template: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--template", metavar="NAME", help="The template, where several serve the model."),
    ] = None,
    name: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--name", metavar="NAME", help="The run directory's name; else that of the file."),
    ] = None,
    out: Out = None,
    force: Force = False,
    as_json: Json = False,
) -> int:
    """Write a manifest for given hardware, or for this machine's where a size is not given.

    Example: runner new --vram 12GiB --ram 48GiB -o flux.toml
    """
    from runner.cli.new import new as write
    from runner.tailor.hardware import Hardware
    from runner.tailor.new import NewManifestRequest

    wanted = NewManifestRequest(Hardware(device, vram, ram), model, template, name, out)
    return write(wanted, force=force, as_json=as_json)


@commands.command()
def port(
    manifest: Manifest,
    vram: Vram = None,
    ram: Ram = None,
    device: Device = None,
    out: Out = None,
    in_place: Annotated[bool, typer.Option("--in-place", help="Rewrite MANIFEST itself.")] = False,
    force: Force = False,
    as_json: Json = False,
) -> int:
    """Rewrite a manifest for other hardware: no more than must be changed, and comments are kept.

    Tells on stderr what was changed and what that costs. What is not given stays as it is.

    Example: runner port flux.toml --vram 6GiB --ram 16GiB -o small.toml
    """
    from runner.cli.port import rewrite
    from runner.tailor.hardware import Hardware

    hardware = Hardware(device, vram, ram)
    return rewrite(manifest, hardware, out, in_place=in_place, force=force, as_json=as_json)


@commands.command()
def reproduce(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Pictures, or other outputs of runs.")
    ],
    model: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--model", metavar="MODEL", help="The model, if it is no longer where it was."),
    ] = None,
    sets: Sets = None,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--output", "-o", metavar="FILE", help="Keep what is made there: a folder, for several."
        ),
    ] = None,
    force: Force = False,
    runs_dir: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--runs-dir", metavar="DIR", help="Keep the run directory there; else it is removed."),
    ] = None,
    as_json: Json = False,
) -> int:
    """Make outputs again from what they say of themselves, bit for bit, or say what differs.

    Exits with 1 where one was made and is another, with 4 or 8 where a stage or a model is no longer the
    same.

    Example: runner reproduce runs/demo/outputs/*.png
    """
    from runner.cli.reproduce import ReproduceRequest
    from runner.cli.reproduce import reproduce as make_again

    return make_again(files, ReproduceRequest(model, sets or [], out, force, runs_dir, as_json))


@commands.command()
def schema(out: Out = None, force: Force = False, as_json: Json = False) -> int:
    """Write the JSON Schema of manifests, with the stages of the installed plugins, for editors.

    A manifest beside it that starts with `#:schema ./runner.schema.json` is checked by
    editors that know taplo (Even Better TOML).

    Example: runner schema -o runner.schema.json
    """
    from runner.cli.schema import schema as write

    return write(out, force=force, as_json=as_json)
