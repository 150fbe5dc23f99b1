"""``runner reproduce``."""

from __future__ import annotations

import re
import tempfile
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from runner.cli.options import Force, Json, Sets
from runner.cli.output import print_error, print_json, say, say_error
from runner.cli.tailored import refuse_overwriting
from runner.errors import ExitCode, InterruptedRunError, RunnerError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from runner.events import Event
    from runner.plugins import Plugins
    from runner.reproduce.pipeline import Original
    from runner.reproduce.reproduce import Differing, Reproduction


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
            "--output", "-o", metavar="FILE", help="Keep what is made there; for several files a folder."
        ),
    ] = None,
    force: Force = False,
    runs_dir: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--runs-dir", metavar="DIR", help="Keep the run directory there; by default it is removed."
        ),
    ] = None,
    as_json: Json = False,
) -> int:
    """Make outputs again from the metadata in them, bit for bit, or show what differs.

    Exits with 1 if a new output differs from the old one, with 4 or 8 if a stage or a model is no longer the
    same.

    Example: runner reproduce runs/demo/outputs/*.png
    """
    from runner.cli.pipelines import discover_plugins

    _refuse_parameters(sets or [])
    targets = _targets(_without_sidecars(files), out, force=force)
    plugins = discover_plugins()
    with nullcontext(runs_dir) if runs_dir else tempfile.TemporaryDirectory("", "runner-reproduce-") as runs:
        reproducer = _Reproducer(plugins, Path(runs), targets, sets or [], model, as_json=as_json)
        return max(reproducer.run())


def _refuse_parameters(sets: Sequence[str]) -> None:
    for setting in sets:
        if re.match(r"(stage\.[^.=]+\.)?with\b", setting):
            raise UsageError(
                f"--set {setting}: an output is made again with the parameters that it was made with; "
                "to make another, run a manifest"
            )


def _without_sidecars(files: Sequence[Path]) -> list[Path]:
    """The files, with sidecars (which a shell's ``*`` includes) replaced by what they belong to."""
    from runner.files.provenance import SIDECAR_SUFFIX

    named = (file.with_name(file.name.removesuffix(SIDECAR_SUFFIX)) for file in files)
    return list(dict.fromkeys(named))


def _targets(files: Sequence[Path], out: Path | None, *, force: bool) -> dict[Path, Path | None]:
    """Where the output that is made again from each file is kept; None where it is not."""
    into = out is not None and (len(files) > 1 or out.is_dir())
    targets = {file: out / file.name if out and into else out for file in files}
    for target in targets.values():
        refuse_overwriting(target, force=force)
    if into and len(set(targets.values())) < len(targets):
        raise UsageError(f"-o {out}: two of the files have the same name")
    return targets


@dataclass(frozen=True)
class _Reproducer:
    """Makes files again, in groups that share a run. An error in one group does not stop the others."""

    plugins: Plugins
    runs: Path
    targets: dict[Path, Path | None]
    sets: Sequence[str]
    model: str | None
    as_json: bool

    def run(self) -> Iterator[int]:
        """Make all files again; yields an exit code for each."""
        from runner.reproduce.lineage import read_lineage
        from runner.reproduce.pipeline import Original, manifest_of

        groups: dict[str, list[Original]] = {}
        for file in self.targets:
            try:
                provenance = read_lineage(file)
                text = manifest_of(provenance, self.plugins, self.model)
            except RunnerError as error:
                yield from self._failed([file], error)
            else:
                groups.setdefault(text, []).append(Original(file, provenance))
        for text, originals in groups.items():
            yield from self._run_group(text, originals)

    def _run_group(self, text: str, originals: list[Original]) -> Iterator[int]:
        from runner.manifest.problems import ManifestError

        try:
            made = self._make_again(text, originals)
        except InterruptedRunError:
            raise
        except ManifestError as error:
            if len(originals) == 1:
                yield from self._failed([originals[0].file], error)
            else:  # the problem may be of one of them only
                for original in originals:
                    yield from self._run_group(text, [original])
        except RunnerError as error:
            yield from self._failed([original.file for original in originals], error)
        else:
            for original, one in zip(originals, made, strict=True):
                yield self._finished(original, one)

    def _make_again(self, text: str, originals: list[Original]) -> list[Reproduction]:
        from runner.cli.display import display_of
        from runner.report.live import LiveReport
        from runner.reproduce.pipeline import pipeline_of
        from runner.reproduce.reproduce import reproduce as reproduce_outputs
        from runner.rundir.journal import Events
        from runner.work.work import run_directory

        pipeline = pipeline_of(text, originals, self.plugins, self.sets)
        events = Events()
        display = display_of(pipeline)
        events.listeners.append(_without_end(display.take))
        with display:
            directory = run_directory(pipeline, self.runs)
            return reproduce_outputs(originals, pipeline, directory, events, [LiveReport])

    def _failed(self, files: Sequence[Path], error: RunnerError) -> Iterator[int]:
        say_error(error)
        for file in files:
            if self.as_json:
                print_error(error, file=file)
            yield error.exit_code

    def _finished(self, original: Original, made: Reproduction) -> int:
        from runner.files.provenance import sidecar
        from runner.files.storage import write_atomically

        target = self.targets[original.file] if made.output is not None else None
        if made.output is not None and target is not None:
            if sidecar(made.output).exists():
                write_atomically(sidecar(target), sidecar(made.output).read_bytes())
            write_atomically(target, made.output.read_bytes())
        if self.as_json:
            print_json(_as_json(original, made, target))
        else:
            _show(original.file, made)
        return made.exit_code


def _without_end(listener: Callable[[Event], None]) -> Callable[[Event], None]:
    """The listener without the event of the run's end: its outputs are shown one by one, or are removed."""
    from runner.events import RunFinished

    def take(event: Event) -> None:
        if not isinstance(event, RunFinished):
            listener(event)

    return take


def _show(file: Path, made: Reproduction) -> None:
    say(f"{file}: {made.message}")
    for line in (*_lines(made.key_mismatches), *_lines(made.environment)):
        say(f"  {line}")
    if made.exit_code == ExitCode.ITEMS_FAILED and made.output is not None and not made.environment:
        say("  versions, device and threads are the same: a stage draws at random, or its code was changed")


def _lines(differing: Differing) -> list[str]:
    """A line for each difference, with the stages that have it."""
    stages: dict[str, list[str]] = {}
    for stage, many in differing.items():
        for one in many:
            stages.setdefault(str(one), []).append(stage)
    return [f"{', '.join(names)}: {line}" for line, names in stages.items()]


def _as_json(original: Original, made: Reproduction, target: Path | None) -> dict[str, Any]:
    mismatches, environment = _differing(made.key_mismatches), _differing(made.environment)
    return {
        "ok": made.exit_code == ExitCode.DONE,
        "exit_code": made.exit_code,
        "file": original.file,
        "key": original.provenance.key,
        "result": made.message,
        "output": target,
        "key_mismatches": mismatches,
        "unlike": mismatches,  # its name in earlier versions, as "circumstances" is
        "environment": environment,
        "circumstances": environment,
    }


def _differing(differing: Differing) -> list[dict[str, Any]]:
    return [{"stage": stage, **one.as_dict()} for stage, many in differing.items() for one in many]
