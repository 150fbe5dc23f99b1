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
from runner.plugin_check.requests import CheckRequest
from runner.plugins import GROUP, discover, load_object
from runner.supervisor.launch import CAN_FORK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from runner.api import Stage
    from runner.plugin_check.harness import Harness
    from runner.plugin_check.overtime import CallSite

_NEEDS_MODEL = "give --manifest M with a small model and two items; in a StageContract, set `model`"
_MEND = "give --manifest M with two items; in a StageContract, set `params`"


class Teller:
    """Tells the sender, a line at a time."""

    def __init__(self, told: IO[str], request: CheckRequest) -> None:
        self._told = told
        self._seconds = request.seconds
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

    def _end(self, stack: list[CallSite]) -> None:
        told, log = overtime.tell(stack, self._seconds, self.packages)
        record = sys.modules.get("runner.plugin_check.record")
        item = record.item_under_way() if record else ""
        told = f"item '{item}': {told}" if item else told
        verdict = Verdict(self._subject, self._check, BROKEN, told, overtime.ADVICE, log)
        self.tell(verdict=vars(verdict))
        os._exit(0)  # that is all there is to tell


def main(request: CheckRequest, teller: Teller) -> None:
    """Do the request and tell what is found."""
    if request.plugin:
        teller.packages.add(_entry(request).module.partition(".")[0])
    if len(request.stages) > 1:
        import runner.plugin_check.stage_checks  # noqa: F401 - torch, once for all of them
    for stage in request.stages:
        teller.began(RUNS, stage)
        _apart(partial(teller.verdicts, _try(request, stage, teller)), teller)
    if not request.stages and request.manifest:
        teller.began(RUNS, request.manifest)
        from runner.plugin_check.first_run import FirstRun

        FirstRun(request, teller.tell).run()
    elif not request.stages:
        from runner.plugin_check.loading import check_loading

        teller.began(LOADS, request.plugin)
        teller.verdicts(check_loading(_entry(request)))


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


def _entry(request: CheckRequest) -> metadata.EntryPoint:
    named = metadata.entry_points(group=GROUP, name=request.plugin)
    return next(entry for entry in named if not entry.dist or entry.dist.name == request.distribution)


def _try(request: CheckRequest, stage: str, teller: Teller) -> Iterator[Verdict]:
    from runner.manifest.problems import ManifestError
    from runner.plugin_check.harness import from_manifest
    from runner.plugin_check.parameters import NoExampleError

    plugins = discover() if request.manifest else discover([_entry(request)])
    runs = Path(request.folder, "" if request.manifest else stage)  # what a manifest made is for all
    runs.mkdir(exist_ok=True)
    synthetic = not request.manifest and request.case is None
    try:
        if request.manifest:
            harness = from_manifest(Path(request.manifest), stage, plugins, runs)
            teller.packages.add(harness.stage.spec.start.partition(":")[0].partition(".")[0])
        else:
            spec = plugins.stage(stage)
            teller.packages.add(spec.start.partition(":")[0].partition(".")[0])
            load_object(spec.start)
            if spec.components and not (request.case or {}).get("model"):
                names = ", ".join(component.name for component in spec.components)
                yield Verdict(spec.name, RUNS, NOT_RUN, f"it needs a model: it loads {names}", _NEEDS_MODEL)
                return
            harness = _alone(spec, request, plugins, runs)
    except NoExampleError as error:
        yield Verdict(stage, RUNS, NOT_RUN, str(error), "give --manifest M with two items")
        return
    except ManifestError as error:
        told = "; ".join(problem.message for problem in error.problems)
        yield Verdict(
            stage, RUNS, NOT_RUN if synthetic else BROKEN, f"what it is given is refused: {told}", _MEND
        )
        return
    except RunnerError as error:
        yield Verdict(stage, RUNS, BROKEN, str(error))
        return
    from runner.plugin_check.stage_checks import try_stage  # torch: not for a stage that is not tried

    yield from try_stage(harness, runs / "again", teller.began, synthetic=synthetic)


def _alone(stage: Stage, request: CheckRequest, plugins: Any, runs: Path) -> Harness:
    from runner.plugin_check import harness
    from runner.plugin_check.parameters import synthetic
    from runner.plugin_check.synthetic_inputs import make_up

    model = load_object(stage.params) if stage.params else None
    case = request.case or {
        "params": [{}] * len(harness.ITEMS),
        "inputs": [],
        "model": "",
        "dtype": "float32",
    }
    params = [synthetic(model, given, n) if model else given for n, given in enumerate(case["params"])]
    inputs = [harness.Inputs(Path(one["tensors"]), one["texts"], one["files"]) for one in case["inputs"]]
    inputs = inputs or make_up(stage, runs / "made-up")
    return harness.alone(stage, harness.Case(params, inputs, case["model"], case["dtype"]), plugins, runs)


if __name__ == "__main__":
    stdout = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    # so that the sender can ask code that lets no other thread run where it is
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sent = CheckRequest(**json.loads(sys.argv[1]))
    teller = Teller(stdout, sent)
    teller.tell(process=os.getpid())
    main(sent, teller)
    stdout.close()
    os._exit(0)  # threads that the plugin has started are not waited for
