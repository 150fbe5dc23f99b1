"""``runner reproduce``."""

from __future__ import annotations

import re
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.cli.common import print_json, say, warn
from runner.cli.display import display_of
from runner.cli.tailored import refuse_overwriting
from runner.errors import ExitCode, InterruptedRunError, RunnerError, UsageError
from runner.events import RunFinished
from runner.files.provenance import SIDECAR_SUFFIX, sidecar
from runner.files.storage import write_atomically
from runner.manifest.problems import ManifestError
from runner.plugins import Plugins, discover
from runner.report.live import LiveReport
from runner.reproduce.lineage import read_lineage
from runner.reproduce.pipeline import Original, manifest_of, pipeline_of
from runner.reproduce.reproduce import Differing, Reproduction
from runner.reproduce.reproduce import reproduce as make_again
from runner.rundir.journal import Events
from runner.work.models import run_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from runner.events import Event


@dataclass(frozen=True)
class ReproduceRequest:
    """What the command line says besides the files."""

    model: str | None = None
    sets: Sequence[str] = ()
    out: Path | None = None
    """Where what is made is kept: a file, or a folder where there are several."""
    force: bool = False
    runs_dir: Path | None = None
    """Where the run directory is kept; it is removed, if left out."""
    as_json: bool = False


def reproduce(files: Sequence[Path], wanted: ReproduceRequest) -> int:
    """Make outputs again from what they say of themselves, and say of each whether it is the same.

    A file that cannot be made again keeps no other from its turn; the largest exit code counts.
    """
    _refuse_parameters(wanted.sets)
    files = _without_sidecars(files)
    into = wanted.out is not None and (len(files) > 1 or wanted.out.is_dir())
    targets = {file: wanted.out / file.name if wanted.out and into else wanted.out for file in files}
    for target in targets.values():
        refuse_overwriting(target, force=wanted.force)
    if into and len(set(targets.values())) < len(targets):
        raise UsageError(f"-o {wanted.out}: two of the files have the same name")
    plugins = discover()
    warn(plugins)
    with _runs(wanted.runs_dir) as runs:
        return max(_Progress(wanted, plugins, runs, targets).take())


def _refuse_parameters(sets: Sequence[str]) -> None:
    for setting in sets:
        if re.match(r"stage\.[^.=]+\.with\b", setting):
            raise UsageError(
                f"--set {setting}: an output is made again with the parameters that it was made with; "
                "to make another, run a manifest"
            )


def _without_sidecars(files: Sequence[Path]) -> list[Path]:
    """The files that are meant where a shell's ``*`` has given what lies beside them too."""
    meant = (file.with_name(file.name.removesuffix(SIDECAR_SUFFIX)) for file in files)
    return list(dict.fromkeys(meant))


@contextmanager
def _runs(kept: Path | None) -> Iterator[Path]:
    if kept is not None:
        yield kept
        return
    with tempfile.TemporaryDirectory(prefix="runner-reproduce-") as folder:
        yield Path(folder)


@dataclass(frozen=True)
class _Progress:
    """Files in groups that one run makes again."""

    wanted: ReproduceRequest
    plugins: Plugins
    runs: Path
    targets: dict[Path, Path | None]

    def take(self) -> Iterator[int]:
        """Make them again; yields an exit code for each file."""
        groups: dict[str, list[Original]] = {}
        for file in self.targets:
            try:
                provenance = read_lineage(file)
                text = manifest_of(provenance, self.plugins, self.wanted.model)
            except RunnerError as error:
                yield from self._failed([file], error)
            else:
                groups.setdefault(text, []).append(Original(file, provenance))
        for text, originals in groups.items():
            yield from self._group(text, originals)

    def _group(self, text: str, originals: list[Original]) -> Iterator[int]:
        try:
            made = self._make_again(text, originals)
        except InterruptedRunError:
            raise
        except ManifestError as error:
            if len(originals) == 1:
                yield from self._failed([originals[0].file], error)
            else:  # what is wrong with one keeps no other from being made
                for original in originals:
                    yield from self._group(text, [original])
        except RunnerError as error:
            yield from self._failed([original.file for original in originals], error)
        else:
            for original, one in zip(originals, made, strict=True):
                yield self._made(original, one)

    def _make_again(self, text: str, originals: list[Original]) -> list[Reproduction]:
        pipeline = pipeline_of(text, originals, self.plugins, self.wanted.sets)
        events = Events()
        display = display_of(pipeline)
        events.listeners.append(_but_its_end(display.take))
        with display:
            directory = run_directory(pipeline, self.runs)
            return make_again(originals, pipeline, directory, events, [LiveReport])

    def _failed(self, files: Sequence[Path], error: RunnerError) -> Iterator[int]:
        say(f"{error.prefix}{error}")
        for file in files:
            if self.wanted.as_json:
                told = {"ok": False, "exit_code": int(error.exit_code), "file": str(file)}
                print_json({**told, "error": str(error)})
            yield error.exit_code

    def _made(self, original: Original, made: Reproduction) -> int:
        target = self.targets[original.file] if made.output is not None else None
        if made.output is not None and target is not None:
            if sidecar(made.output).exists():
                write_atomically(sidecar(target), sidecar(made.output).read_bytes())
            write_atomically(target, made.output.read_bytes())
        if self.wanted.as_json:
            print_json(_as_dict(original, made, target))
        else:
            _tell(original.file, made)
        return made.exit_code


def _but_its_end(listener: Callable[[Event], None]) -> Callable[[Event], None]:
    """Where a run left its outputs is of no interest: of each it is told by itself, and they may not stay."""

    def take(event: Event) -> None:
        if not isinstance(event, RunFinished):
            listener(event)

    return take


def _tell(file: Path, made: Reproduction) -> None:
    say(f"{file}: {made.message}")
    for line in (*_lines(made.key_mismatches), *_lines(made.environment)):
        say(f"  {line}")
    if made.exit_code == ExitCode.ITEMS_FAILED and made.output is not None and not made.environment:
        say("  versions, device and threads are the same: a stage draws at random, or its code was changed")


def _lines(differing: Differing) -> list[str]:
    """A line for each difference, with the stages that it is at."""
    stages: dict[str, list[str]] = {}
    for stage, many in differing.items():
        for one in many:
            stages.setdefault(str(one), []).append(stage)
    return [f"{', '.join(at)}: {told}" for told, at in stages.items()]


def _as_dict(original: Original, made: Reproduction, target: Path | None) -> dict[str, Any]:
    mismatches, environment = _differing(made.key_mismatches), _differing(made.environment)
    return {
        "ok": made.exit_code == ExitCode.DONE,
        "exit_code": int(made.exit_code),
        "file": str(original.file),
        "key": original.provenance.key,
        "result": made.message,
        "output": str(target) if target is not None else None,
        "key_mismatches": mismatches,
        "environment": environment,
        # their names in earlier versions
        "unlike": mismatches,
        "circumstances": environment,
    }


def _differing(differing: Differing) -> list[dict[str, Any]]:
    return [{"stage": stage, **one.as_dict()} for stage, many in differing.items() for one in many]
