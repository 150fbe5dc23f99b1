"""The executor of runs on other machines: agents at places that a plugin offers, each a node of the run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runner import events as ev
from runner.errors import PluginError, RunnerError, in_words
from runner.manifest.problems import Problems
from runner.plugins import load_object
from runner.remote.greeting import Greeter
from runner.remote.members import Members
from runner.remote.stage_round import StageRound
from runner.work.checks import look
from runner.work.keys import keys_of
from runner.work.models import find_models

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import ExitStack

    from runner.pipeline.binding import Pipeline
    from runner.pipeline.stage import PipelineStage
    from runner.supervisor.executor import OpenRun, StageTasks
    from runner.work.keys import Keys


class Fleet:
    """Nodes that come and go, and the stages that they make."""

    _run: OpenRun
    _greeter: Greeter
    _members: Members

    def __init__(self, pipeline: Pipeline) -> None:
        """Check what can be checked here: models that are on this machine, whatever its devices.

        Raises:
            RunnerError: a model that is here does not fit.

        """
        if pipeline.executor is None:
            raise AssertionError("the manifest chooses an executor")
        self._pipeline = pipeline
        self._executor = pipeline.executor
        self._resolved = find_models(pipeline, Problems())  # nodes tell what they do not find
        here = [s for s in pipeline.stages if not s.components or self._resolved.model(s)]
        self._findings = look(self._resolved, here)
        self._findings.problems.check()

    def open(self, run: OpenRun, stack: ExitStack) -> None:
        self._run = run
        connect, name = self._executor.spec.connect, self._executor.spec.name
        self._greeter = Greeter(self._pipeline, run.directory, None)
        self._greeter.write_word()
        try:
            places = load_object(connect)(self._executor.params, run.publisher.run)
        except (RunnerError, KeyboardInterrupt):
            raise
        except Exception as error:
            raise PluginError(f"executor '{name}': {in_words(error)}") from error
        self._members = Members(run, name, places, self._greeter)
        stack.callback(self._members.close)

    def prepare(self) -> Keys:
        """The keys of all items: from the models here, or else from what the nodes tell of theirs."""
        for warning in self._findings.warnings:
            warned = ev.Warned(kind="model", message=str(warning), stage=warning.stage)
            self._run.publisher.warning(warned)
        if self._resolved.keys() is not None:
            self._greeter.fingerprints = self._resolved.fingerprints
        else:
            self._members.wait_for_one()
        return keys_of(self._pipeline, list(self._greeter.fingerprints or ()))

    def plan(self, stages: Sequence[PipelineStage]) -> None:
        """Nodes plan for themselves, and are refused where a stage does not fit: one that can is enough."""
        if stages:
            self._members.wait_for_one()

    def output_bytes(self, stage: PipelineStage) -> int:
        return max(
            (n.welcome.stages[stage.index].output_bytes for n in self._members.ready if n.welcome), default=0
        )

    def run_stage(self, work: StageTasks) -> None:
        self._members.wait_for_one()
        StageRound(self._members, work, self._source(work.stage)).run()

    def _source(self, stage: PipelineStage) -> dict[str, Any] | None:
        """The record of the model for all results: as it is here, else as on the node that came first."""
        model = self._resolved.placed(stage)
        if model is not None:
            return model.record()
        first = next((node.welcome for node in self._members.nodes if node.welcome), None)
        return first.stages[stage.index].source if first else None
