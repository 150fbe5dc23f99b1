"""The process that runs plugin checks: ``python -m runner.plugin_check REQUEST``, see :mod:`.requests`.

What it finds it tells on stdout, a JSON object a line; what plugins print goes to stderr.
"""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import sys
import traceback
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from runner.errors import RunnerError
from runner.plugin_check import overtime
from runner.plugin_check.checks import BROKEN, LOADS, NOT_RUN, RUNS, Verdict
from runner.plugin_check.overtime import TimeLimit
from runner.plugin_check.requests import Errand
from runner.plugins import GROUP, discover, load_object
from runner.supervisor.launch import CAN_FORK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from runner.api import Stage
    from runner.plugin_check.harness import Trial
    from runner.plugin_check.overtime import Place

_NEEDS_MODEL = "give --manifest M with a small model and two items; in a StageContract, set `model`"
_MEND = "give --manifest M with two items; in a StageContract, set `params`"


class Teller:
    """Tells the sender, a line at a time."""

    def __init__(self, told: IO[str], errand: Errand) -> None:
        self._told = told
        self._seconds = errand.seconds
        self._check = self._subject = ""
        self.packages: set[str] = set()
        """The plugin's own, by which its lines are known."""

    def began(self, check: str, subject: str) -> None:
        """Say what is looked at from now on."""
        self._check, self._subject = check, subject
        self.tell(began=check, subject=subject, seconds=self._seconds, packages=[*self.packages])

    def tell(self, **line: Any) -> None:
        """Tell one thing, and how much has been printed when it was told."""
        printed = os.lseek(2, 0, os.SEEK_END)
        self._told.write(json.dumps({**line, "at": printed}) + "\n")

    def verdicts(self, found: Iterable[Verdict]) -> None:
        """Tell verdicts as they are found; when the time is over, tell where and exit."""
        with TimeLimit(self._seconds, self._end):
            for verdict in found:
                self.tell(verdict=vars(verdict))

    def _end(self, stack: list[Place]) -> None:
        told, log = overtime.tell(stack, self._seconds, self.packages)
        record = sys.modules.get("runner.plugin_check.record")
        item = record.item_under_way() if record else ""
        told = f"item '{item}': {told}" if item else told
        verdict = Verdict(self._subject, self._check, BROKEN, told, overtime.ADVICE, log)
        self.tell(verdict=vars(verdict))
        os._exit(0)  # that is all there is to tell


def main(errand: Errand, teller: Teller) -> None:
    """Do the errand and tell what is found."""
    if errand.plugin:
        teller.packages.add(_entry(errand).module.partition(".")[0])
    if len(errand.stages) > 1:
        import runner.plugin_check.stage_checks  # noqa: F401 - torch, once for all of them
    for stage in errand.stages:
        teller.began(RUNS, stage)
        _apart(partial(teller.verdicts, _try(errand, stage, teller)), teller)
    if not errand.stages and errand.manifest:
        teller.began(RUNS, errand.manifest)
        from runner.plugin_check.first_run import FirstRun

        FirstRun(errand, teller.tell).run()
    elif not errand.stages:
        from runner.plugin_check.loading import check_loading

        teller.began(LOADS, errand.plugin)
        teller.verdicts(check_loading(_entry(errand)))


def _apart(do: Callable[[], None], teller: Teller) -> None:
    """Do it in a fork of this process, where that can be: what it breaks or leaves behind is gone with it."""
    if not CAN_FORK:
        do()
        return
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            teller.tell(process=os.getpid())
            do()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        teller.tell(died=code)


def _entry(errand: Errand) -> metadata.EntryPoint:
    named = metadata.entry_points(group=GROUP, name=errand.plugin)
    return next(entry for entry in named if not entry.dist or entry.dist.name == errand.distribution)


def _try(errand: Errand, stage: str, teller: Teller) -> Iterator[Verdict]:
    from runner.manifest.problems import ManifestError
    from runner.plugin_check.harness import from_manifest
    from runner.plugin_check.parameters import CannotMakeUpError

    plugins = discover() if errand.manifest else discover([_entry(errand)])
    runs = Path(errand.folder, "" if errand.manifest else stage)  # what a manifest made is for all
    runs.mkdir(exist_ok=True)
    made_up = not errand.manifest and errand.case is None
    try:
        if errand.manifest:
            trial = from_manifest(Path(errand.manifest), stage, plugins, runs)
            teller.packages.add(trial.stage.spec.start.partition(":")[0].partition(".")[0])
        else:
            spec = plugins.stage(stage)
            teller.packages.add(spec.start.partition(":")[0].partition(".")[0])
            load_object(spec.start)
            if spec.components and not (errand.case or {}).get("model"):
                names = ", ".join(component.name for component in spec.components)
                yield Verdict(spec.name, RUNS, NOT_RUN, f"it needs a model: it loads {names}", _NEEDS_MODEL)
                return
            trial = _alone(spec, errand, plugins, runs)
    except CannotMakeUpError as error:
        yield Verdict(stage, RUNS, NOT_RUN, str(error), "give --manifest M with two items")
        return
    except ManifestError as error:
        told = "; ".join(problem.message for problem in error.problems)
        yield Verdict(
            stage, RUNS, NOT_RUN if made_up else BROKEN, f"what it is given is refused: {told}", _MEND
        )
        return
    except RunnerError as error:
        yield Verdict(stage, RUNS, BROKEN, str(error))
        return
    from runner.plugin_check.stage_checks import try_stage  # torch: not for a stage that is not tried

    yield from try_stage(trial, runs / "again", teller.began, made_up=made_up)


def _alone(stage: Stage, errand: Errand, plugins: Any, runs: Path) -> Trial:
    from runner.plugin_check import harness as trial
    from runner.plugin_check.parameters import made_up
    from runner.plugin_check.synthetic_inputs import make_up

    model = load_object(stage.params) if stage.params else None
    case = errand.case or {"params": [{}] * len(trial.ITEMS), "inputs": [], "model": "", "dtype": "float32"}
    params = [made_up(model, given, n) if model else given for n, given in enumerate(case["params"])]
    inputs = [trial.Inputs(Path(one["tensors"]), one["texts"], one["files"]) for one in case["inputs"]]
    inputs = inputs or make_up(stage, runs / "made-up")
    return trial.alone(stage, trial.Case(params, inputs, case["model"], case["dtype"]), plugins, runs)


if __name__ == "__main__":
    stdout = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    # so that the sender can ask code that lets no other thread run where it is
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sent = Errand(**json.loads(sys.argv[1]))
    teller = Teller(stdout, sent)
    teller.tell(process=os.getpid())
    main(sent, teller)
    stdout.close()
    os._exit(0)  # threads that the plugin has started are not waited for
