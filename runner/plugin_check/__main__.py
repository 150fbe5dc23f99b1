"""The process that runs plugin checks: ``python -m runner.plugin_check REQUEST``, see :mod:`.requests`.

Its report goes to stdout, a JSON object a line; what plugins print goes to stderr.
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
from typing import TYPE_CHECKING

from runner.errors import RunnerError
from runner.plugin_check.checks import BROKEN, LOADS, NOT_RUN, RUNS, Verdict
from runner.plugin_check.reporter import Reporter
from runner.plugin_check.requests import CheckRequest
from runner.plugins import GROUP, collection_paused, discover, load_object
from runner.supervisor.processes.launch import CAN_FORK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runner.api import Stage
    from runner.plugin_check.harness import Harness
    from runner.plugins import Plugins

_NEEDS_MODEL = "give --manifest M with a small model and two items; in a StageContract, set `model`"
_NEEDS_PARAMS = "give --manifest M with two items; in a StageContract, set `params`"


def main(request: CheckRequest, reporter: Reporter) -> None:
    """Run the requested checks and report their verdicts."""
    if request.plugin:
        reporter.packages.add(_entry(request).module.partition(".")[0])
    if len(request.stages) > 1:
        with collection_paused():
            import runner.plugin_check.stage_checks  # noqa: F401 - torch, once for all forks
    for stage in request.stages:
        reporter.check_started(RUNS, stage)
        _in_fork(partial(reporter.verdicts, _stage_verdicts(request, stage, reporter)), reporter)
    if not request.stages and request.manifest:
        from runner.plugin_check.first_run import FirstRun

        reporter.check_started(RUNS, request.manifest)
        FirstRun(request, reporter).run()
    elif not request.stages:
        from runner.plugin_check.loading import check_loading

        reporter.check_started(LOADS, request.plugin)
        reporter.verdicts(check_loading(_entry(request)))


def _in_fork(do: Callable[[], None], reporter: Reporter) -> None:
    """Call ``do`` in a fork of this process, where forking is possible, so that a crash stays in there."""
    if not CAN_FORK:
        do()
        return
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            reporter.write(process=os.getpid())
            do()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        reporter.write(exited=code)


def _entry(request: CheckRequest) -> metadata.EntryPoint:
    named = metadata.entry_points(group=GROUP, name=request.plugin)
    return next(entry for entry in named if not entry.dist or entry.dist.name == request.distribution)


def _stage_verdicts(request: CheckRequest, stage: str, reporter: Reporter) -> Iterator[Verdict]:
    from runner.manifest.problems import ManifestError
    from runner.plugin_check.parameters import NoExampleError

    synthetic = not request.manifest and request.case is None
    try:
        harness = _harness(request, stage, reporter)
    except NoExampleError as error:
        yield Verdict(stage, RUNS, NOT_RUN, str(error), error.advice)
        return
    except ManifestError as error:
        problems = "; ".join(problem.message for problem in error.problems)
        status = NOT_RUN if synthetic else BROKEN
        yield Verdict(stage, RUNS, status, f"its parameters or inputs are refused: {problems}", _NEEDS_PARAMS)
        return
    except RunnerError as error:
        yield Verdict(stage, RUNS, BROKEN, str(error))
        return
    with collection_paused():
        from runner.plugin_check.stage_checks import check_stage  # imports torch: only where a stage runs

    yield from check_stage(harness, reporter, synthetic=synthetic)


def _harness(request: CheckRequest, stage: str, reporter: Reporter) -> Harness:
    """What the stage is run on: the manifest's items, or the request's case.

    Raises:
        NoExampleError: the author has to provide a model or a value.
        RunnerError: the plugin, the manifest or the case is not valid.

    """
    from runner.plugin_check.harness import from_manifest
    from runner.plugin_check.parameters import NoExampleError

    plugins = discover() if request.manifest else discover([_entry(request)])
    runs = Path(request.folder, "" if request.manifest else stage)  # stages of a manifest share its run
    runs.mkdir(exist_ok=True)
    if request.manifest:
        harness = from_manifest(Path(request.manifest), stage, plugins, runs)
        reporter.packages.add(_package(harness.stage.spec))
        return harness
    spec = plugins.stage(stage)
    reporter.packages.add(_package(spec))
    load_object(spec.start)
    components = spec.components
    if components and not (request.case or {}).get("model"):
        loads = (
            "components that depend on it"
            if isinstance(components, str)
            else ", ".join(c.name for c in components)
        )
        raise NoExampleError(f"it needs a model: it loads {loads}", _NEEDS_MODEL)
    return _from_case(spec, request, plugins, runs)


def _package(stage: Stage) -> str:
    """The top-level package of a stage's code."""
    return stage.start.partition(":")[0].partition(".")[0]


def _from_case(stage: Stage, request: CheckRequest, plugins: Plugins, runs: Path) -> Harness:
    from runner.pipeline.for_model import params_model
    from runner.plugin_check import harness
    from runner.plugin_check.parameters import synthetic_params
    from runner.plugin_check.synthetic_inputs import synthetic_inputs

    model = params_model(stage, None)
    case = request.case or {
        "params": [{}] * len(harness.ITEMS),
        "inputs": [],
        "model": "",
        "dtype": "float32",
    }
    params = [synthetic_params(model, given, n) if model else given for n, given in enumerate(case["params"])]
    inputs = [harness.Inputs(Path(one["tensors"]), one["texts"], one["files"]) for one in case["inputs"]]
    inputs = inputs or synthetic_inputs(stage, runs / "synthetic")
    return harness.from_case(stage, harness.Case(params, inputs, case["model"], case["dtype"]), plugins, runs)


if __name__ == "__main__":
    stdout = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    # at SIGABRT, from the parent, it prints the stack even while the plugin's code holds the GIL
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    received = CheckRequest(**json.loads(sys.argv[1]))
    main_reporter = Reporter(stdout, received)
    main_reporter.write(process=os.getpid())
    main(received, main_reporter)
    stdout.close()
    os._exit(0)  # do not wait for threads that the plugin has started
