"""The commands and their options. What they do is imported when they run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from runner.errors import EXIT_MEANINGS

EXITS = "Exit codes: " + " · ".join(f"{int(code)} {what}" for code, what in EXIT_MEANINGS.items())

app = typer.Typer(
    name="runner",
    help="Runs AI pipelines that are bigger than the machine, from a manifest, stage by stage.",
    epilog=EXITS,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
plugins_app = typer.Typer(help="What plugins are installed, and which are broken.", no_args_is_help=True)
app.add_typer(plugins_app, name="plugins")

Manifest = Annotated[Path, typer.Argument(metavar="MANIFEST", help="The manifest, a TOML file.")]
Sets = Annotated[
    Optional[list[str]],  # noqa: UP045 - typer before 0.16 reads no `list[str] | None` here
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a value, such as stage.diffuse.with.steps=4 or budget.vram=6GiB. May be repeated.",
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
        help="Make it all again, or from STAGE on, though it is there.",
    ),
]
Vram = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--vram", metavar="SIZE", help="Device memory that a stage may take, such as 8GiB."),
]
Ram = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--ram", metavar="SIZE", help="RAM that a stage may take, such as 30GiB."),
]
Device = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--device", metavar="DEVICE", help="auto, cpu, cuda or cuda:N."),
]
Out = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--output", "-o", metavar="FILE", help="Write it there; to stdout if left out."),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite the file that is there.")]
RUNS = Path("runs")


def complete_fresh(arguments: list[str]) -> list[str]:
    """``--fresh`` alone means every stage; what follows it is a stage unless it is a file or an option."""
    from runner.plan import ALL_STAGES

    completed = []
    for n, argument in enumerate(arguments):
        follower = arguments[n + 1] if n + 1 < len(arguments) else "-"
        alone = follower.startswith("-") or "." in follower or "/" in follower
        completed.append(f"--fresh={ALL_STAGES}" if argument == "--fresh" and alone else argument)
    return completed


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Global options."""
    if version:
        from runner import __version__

        typer.echo(f"runner {__version__}")
        raise typer.Exit


@app.command()
def run(
    manifests: Annotated[
        list[Path], typer.Argument(metavar="MANIFEST...", help="Manifests, run one after the other.")
    ],
    sets: Sets = None,
    prompts: Prompts = None,
    fresh: Fresh = None,
    runs_dir: RunsDir = RUNS,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be done, and write nothing.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Make what the manifest asks for and is not there yet; run it again and it goes on where it was.

    Example: runner run manifests/demo.toml --set stage.diffuse.with.steps=8
    """
    from runner.cli.common import Options

    options = Options(sets or [], prompts or [], fresh, runs_dir, as_json)
    if dry_run:
        from runner.cli.plan import plan as show

        return max(show(manifest, options) for manifest in manifests)
    from runner.cli.run import run_all

    return run_all(manifests, options)


@app.command()
def plan(
    manifest: Manifest,
    sets: Sets = None,
    prompts: Prompts = None,
    fresh: Fresh = None,
    runs_dir: RunsDir = RUNS,
    as_json: Json = False,
) -> int:
    """Show the stages, what each loads, and what there is to do and why. Writes nothing.

    Example: runner plan manifests/flux_8gb.toml --set budget.device=cuda
    """
    from runner.cli.common import Options
    from runner.cli.plan import plan as show

    return show(manifest, Options(sets or [], prompts or [], fresh, runs_dir, as_json))


@app.command()
def validate(manifest: Manifest, sets: Sets = None, prompts: Prompts = None, as_json: Json = False) -> int:
    """Check a manifest, its items and its model folders without running anything.

    Example: runner validate manifests/demo.toml
    """
    from runner.cli.common import Options
    from runner.cli.validate import validate as check

    return check(manifest, Options(sets or [], prompts or [], as_json=as_json))


@app.command()
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

    Example: runner new --vram 12GiB --ram 48GiB -o flux-12gb.toml
    """
    from runner.cli.new import new as write
    from runner.plan.tailor.hardware import Hardware
    from runner.plan.tailor.new import Wanted

    wanted = Wanted(Hardware(device, vram, ram), model, template, name, out)
    return write(wanted, force=force, as_json=as_json)


@app.command()
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

    Example: runner port manifests/flux_8gb.toml --vram 6GiB --ram 16GiB -o flux-6gb.toml
    """
    from runner.cli.port import rewrite
    from runner.plan.tailor.hardware import Hardware

    hardware = Hardware(device, vram, ram)
    return rewrite(manifest, hardware, out, in_place=in_place, force=force, as_json=as_json)


@app.command()
def doctor(
    no_disk: Annotated[
        bool, typer.Option("--no-disk", help="Measure no disk; the last measurement is shown.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Look at devices, memory, disks, versions and plugins, and say what to do about what is amiss.

    Measures disks by writing and reading a temporary file of 512 MiB.

    Example: runner doctor --no-disk
    """
    from runner.cli.doctor import doctor as examine

    return examine(as_json=as_json, measure_disks=not no_disk, runs=RUNS)


@plugins_app.command("list")
def plugins_list(as_json: Json = False) -> int:
    """List the installed plugins with their stages and hooks, and those that are set aside.

    Example: runner plugins list --json
    """
    from runner.cli import plugins

    return plugins.list_plugins(as_json=as_json)
