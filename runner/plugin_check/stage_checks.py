"""Checks that run a stage: as a worker does, and then in ways that must not change its outputs."""

from __future__ import annotations

import traceback
from dataclasses import replace
from typing import TYPE_CHECKING

from runner.errors import RunnerError
from runner.plan.requirements import RUNNING
from runner.plugin_check.checks import (
    BROKEN,
    FINITE,
    INTERLEAVES,
    MEMORY,
    NOT_RUN,
    OK,
    OUTPUTS,
    REPEATS,
    RESUMES,
    RUNS,
    STREAMS,
    WARN,
    Verdict,
)
from runner.plugin_check.nonfinite import find_hidden
from runner.plugin_check.peak import peak_of
from runner.plugin_check.record import Recording
from runner.units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.plugin_check.harness import Harness
    from runner.plugin_check.record import Content, MadeItem
    from runner.plugin_check.reporter import Reporter

SCALARS = 4096  # bytes of scalars and indices that a formula may ignore
_ISOLATE = "keep an item's state inside the function for one item; draw random numbers from its seed"
_RESUME = "give item.step all that later steps need, and start at item.saved.step with item.saved.state"


_IDENTICAL = "bit-identical"


def check_stage(harness: Harness, reporter: Reporter, *, synthetic: bool) -> Iterator[Verdict]:
    """Run the stage's items, then the other checks.

    A stage that refuses ``synthetic`` inputs counts as not run.
    """
    name = harness.stage.spec.name
    recording = Recording(harness.job, reporter.item_started)
    failure = _run(recording)
    if failure.startswith("OutputError: "):
        yield Verdict(name, RUNS, OK, _summary(recording))
        advice = "return what `outputs` declares, or declare what is returned"
        yield Verdict(name, OUTPUTS, BROKEN, failure.removeprefix("OutputError: "), advice)
        return
    if failure and synthetic:
        message = f"synthetic inputs are refused: {failure}"
        yield Verdict(name, RUNS, NOT_RUN, message, "give --manifest with items that it accepts")
        return
    if failure:
        yield Verdict(name, RUNS, BROKEN, failure)
        return
    yield Verdict(name, RUNS, OK, _summary(recording))
    outputs = dict.fromkeys(output for made in recording.made for output in made.content)
    yield Verdict(name, OUTPUTS, OK, ", ".join(outputs))
    for check, run in (
        (REPEATS, _repeats),
        (INTERLEAVES, _interleaves),
        (STREAMS, _streams),
        (RESUMES, _resumes),
        (MEMORY, _memory),
        (FINITE, _finite),
    ):
        reporter.check_started(check, name)
        try:
            yield run(harness, recording)
        except Exception as error:
            traceback.print_exc()
            yield Verdict(name, check, BROKEN, f"{type(error).__name__}: {error}", _ISOLATE)


def _run(recording: Recording) -> str:
    """Run the job; returns the first error message, or an empty string."""
    try:
        recording.run()
    except Exception as error:
        return str(error) if isinstance(error, RunnerError) else f"{type(error).__name__}: {error}"
    return next(iter(recording.errors), "")


def _summary(recording: Recording) -> str:
    steps = sum(made.steps for made in recording.made)
    items = "2 items" if len(recording.made) > 1 else "1 item"
    return f"{items}, {steps} steps reported"


def _repeats(harness: Harness, recording: Recording) -> Verdict:
    name = harness.stage.spec.name
    for made in recording.made:
        difference = _difference(made, recording.again(made))
        if difference:
            return Verdict(name, REPEATS, BROKEN, f"{difference} when it is made again", _ISOLATE)
    return Verdict(name, REPEATS, OK, _IDENTICAL)


def _interleaves(harness: Harness, recording: Recording) -> Verdict:
    name = harness.stage.spec.name
    for made, content in recording.interleaved():
        difference = _difference(made, content)
        if difference:
            message = f"{difference} when another item is made in turns with it"
            return Verdict(name, INTERLEAVES, BROKEN, message, _ISOLATE)
    if recording.modules or any(made.steps for made in recording.made):
        return Verdict(name, INTERLEAVES, OK, _IDENTICAL)
    return Verdict(name, INTERLEAVES, OK, "it has neither steps nor blocks, so items never take turns")


def _streams(harness: Harness, recording: Recording) -> Verdict:
    name = harness.stage.spec.name
    try:
        job = harness.streamed()
    except RunnerError as error:
        return Verdict(name, STREAMS, OK, f"it cannot be streamed: {str(error).partition(': ')[2]}")
    if job is None:
        return Verdict(name, STREAMS, OK, "it has no weights")
    streamed = Recording(job, recording.on_item)
    failure = _run(streamed)
    if failure:
        return Verdict(name, STREAMS, BROKEN, failure, "use weights only by calling the component")
    contents = {made.id: made.content for made in streamed.made}
    for made in recording.made:
        difference = _difference(made, contents[made.id])
        if difference:
            message = f"{difference} when weights are streamed"
            return Verdict(name, STREAMS, BROKEN, message, "keep no weight, nor a copy or view of one")
    return Verdict(name, STREAMS, OK, _IDENTICAL)


def _resumes(harness: Harness, recording: Recording) -> Verdict:
    name = harness.stage.spec.name
    made = next((made for made in recording.made if made.state_at), None)
    if made is None:
        return Verdict(name, RESUMES, OK, "it saves no state: an interrupted item starts again")
    item = next(item for item in recording.job.items if item.id == made.id)
    job = replace(recording.job, items=(item,))
    Recording(job, recording.on_item, stop_at=made.state_at).run()
    resumed = Recording(job, recording.on_item)
    failure = _run(resumed)
    if failure:
        message = f"resumed from step {made.state_at}: {failure}"
        return Verdict(name, RESUMES, BROKEN, message, _RESUME)
    difference = _difference(made, resumed.made[0].content)
    if difference:
        message = f"{difference} when it is resumed from step {made.state_at}"
        return Verdict(name, RESUMES, BROKEN, message, _RESUME)
    if not resumed.made[0].resumed:
        message = "it saves a state, but never reads item.saved"
        return Verdict(name, RESUMES, WARN, message, "resume from item.saved, or save no state")
    return Verdict(name, RESUMES, OK, f"{_IDENTICAL}, resumed from step {made.state_at}")


def _memory(harness: Harness, recording: Recording) -> Verdict:
    name, need = harness.stage.spec.name, harness.plan.need
    peaks = [peak_of(recording, made) for made in recording.made]
    tensors = max(peaks, key=lambda peak: peak.tensors)
    process = max((peak.process or 0 for peak in peaks), default=0)
    measured = max(tensors.tensors, process - RUNNING)
    predicted = format_size(need.activations) if need.has_formula else "nothing, without a formula"
    message = f"predicted: {predicted}; measured: {format_size(tensors.tensors)} of tensors"
    message += f", {format_size(process)} of the process" if process > RUNNING else ""
    excess = measured - need.activations
    if excess > (SCALARS if need.has_formula else RUNNING):
        at = f", peak at {tensors.at}" if tensors.at and measured == tensors.tensors else ""
        advice = "add up the tensors alive at the peak: inputs, intermediate results, outputs"
        return Verdict(name, MEMORY, BROKEN, f"{message}{at}; {format_size(excess)} too little", advice)
    return Verdict(name, MEMORY, OK, message)


def _finite(harness: Harness, recording: Recording) -> Verdict:
    name = harness.stage.spec.name
    hidden = find_hidden(recording, recording.made[0])
    if hidden is None:
        return Verdict(name, FINITE, OK, "no output is made of NaN or infinite numbers")
    cause, output = hidden
    message = f"'{output}' is made of numbers that are not finite, without an error, when {cause}"
    advice = f'call item.check_finite("{output}", numbers) before they become anything but a tensor'
    return Verdict(name, FINITE, BROKEN, message, advice)


def _difference(made: MadeItem, content: Content) -> str:
    """Says which output of an item differs from the first time; empty if none does."""
    for name in sorted({*made.content, *content}):
        if made.content.get(name) != content.get(name):
            return f"'{name}' of item '{made.id}' differs"
    return ""
