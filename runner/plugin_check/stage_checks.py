"""Checks of a stage at work: run as a worker runs it, and then in each other way that must not matter."""

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
from runner.plugin_check.nonfinite import hidden
from runner.plugin_check.peak import peak_of
from runner.plugin_check.record import Recording
from runner.units import format_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from runner.plugin_check.harness import Harness
    from runner.plugin_check.record import Content

SCALARS = 4096  # bytes of numbers and indices that no formula need count
_KEEP = "keep all that belongs to an item inside the function for one item; draw random numbers from its seed"
_GO_ON = "give item.step all that the steps after it need, and begin at item.saved.step with item.saved.state"


def try_stage(
    harness: Harness, folder: Path, began: Callable[[str, str], None], *, synthetic: bool
) -> Iterator[Verdict]:
    """Run the stage's items and look at what comes of it; ``began`` is told of each further check.

    Where the inputs are ``synthetic``, a stage that refuses them is not to blame.
    """
    name = harness.stage.spec.name
    recording = Recording(harness.job, folder)
    failed = _failed(recording)
    if failed.startswith("OutputError: "):
        yield Verdict(name, RUNS, OK, _told(recording))
        advice = "return what `outputs` declares, or declare what is returned"
        yield Verdict(name, OUTPUTS, BROKEN, failed.removeprefix("OutputError: "), advice)
        return
    if failed and synthetic:
        told = f"made-up inputs are refused: {failed}"
        yield Verdict(name, RUNS, NOT_RUN, told, "give --manifest with items that it takes")
        return
    if failed:
        yield Verdict(name, RUNS, BROKEN, failed)
        return
    yield Verdict(name, RUNS, OK, _told(recording))
    outputs = dict.fromkeys(output for made in recording.made for output in made.content)
    yield Verdict(name, OUTPUTS, OK, ", ".join(outputs))
    for check, try_ in (
        (REPEATS, _repeats),
        (INTERLEAVES, _interleaves),
        (STREAMS, _streams),
        (RESUMES, _resumes),
        (MEMORY, _memory),
        (FINITE, _finite),
    ):
        began(check, name)
        try:
            yield try_(harness, recording)
        except Exception as error:
            traceback.print_exc()
            yield Verdict(name, check, BROKEN, f"{type(error).__name__}: {error}", _KEEP)


def _failed(recording: Recording) -> str:
    """Run; returns what went wrong first."""
    try:
        recording.run()
    except Exception as error:
        return str(error) if isinstance(error, RunnerError) else f"{type(error).__name__}: {error}"
    return next(iter(recording.errors), "")


def _told(recording: Recording) -> str:
    steps = sum(made.steps for made in recording.made)
    items = "2 items" if len(recording.made) > 1 else "1 item"
    return f"{items}, {steps} steps told"


def _repeats(harness: Harness, recording: Recording) -> Verdict:
    for made in recording.made:
        differs = _difference(made.content, recording.again(made))
        if differs:
            told = f"{differs} of item '{made.id}' differs when it is made again"
            return Verdict(harness.stage.spec.name, REPEATS, BROKEN, told, _KEEP)
    return Verdict(harness.stage.spec.name, REPEATS, OK, "to the bit")


def _interleaves(harness: Harness, recording: Recording) -> Verdict:
    for made, content in recording.interleaved():
        differs = _difference(made.content, content)
        if differs:
            told = f"{differs} of item '{made.id}' differs when another item is made in turns with it"
            return Verdict(harness.stage.spec.name, INTERLEAVES, BROKEN, told, _KEEP)
    waits = recording.modules or any(made.steps for made in recording.made)
    told = "to the bit" if waits else "it tells no steps and loads nothing: items are made whole"
    return Verdict(harness.stage.spec.name, INTERLEAVES, OK, told)


def _streams(harness: Harness, recording: Recording) -> Verdict:
    name = harness.stage.spec.name
    try:
        job = harness.streamed()
    except RunnerError as error:
        return Verdict(name, STREAMS, OK, f"it cannot be streamed: {str(error).partition(': ')[2]}")
    if job is None:
        return Verdict(name, STREAMS, OK, "it has no weights")
    streamed = Recording(job, recording.folder)
    failed = _failed(streamed)
    if failed:
        return Verdict(name, STREAMS, BROKEN, failed, "use weights by calling the component, in no other way")
    resident = {made.id: made.content for made in recording.made}
    for made in streamed.made:
        differs = _difference(resident[made.id], made.content)
        if differs:
            told = f"{differs} of item '{made.id}' differs when weights are streamed"
            return Verdict(name, STREAMS, BROKEN, told, "keep no weight, nor a copy or view of one")
    return Verdict(name, STREAMS, OK, "to the bit")


def _resumes(harness: Harness, recording: Recording) -> Verdict:
    name = harness.stage.spec.name
    made = next((made for made in recording.made if made.state_at), None)
    if made is None:
        return Verdict(name, RESUMES, OK, "it saves no state: an interrupted item begins anew")
    item = next(item for item in recording.job.items if item.id == made.id)
    job = replace(recording.job, items=(item,))
    Recording(job, recording.folder, stop_at=made.state_at).run()
    resumed = Recording(job, recording.folder)
    failed = _failed(resumed)
    if failed:
        return Verdict(name, RESUMES, BROKEN, f"from step {made.state_at} on: {failed}", _GO_ON)
    differs = _difference(made.content, resumed.made[0].content)
    if differs:
        told = f"{differs} of item '{made.id}' differs when it goes on from step {made.state_at}"
        return Verdict(name, RESUMES, BROKEN, told, _GO_ON)
    if not resumed.made[0].went_on:
        told = "it saves a state, and never looks at item.saved"
        return Verdict(name, RESUMES, WARN, told, "go on from item.saved, or save none")
    return Verdict(name, RESUMES, OK, f"to the bit, from step {made.state_at} on")


def _memory(harness: Harness, recording: Recording) -> Verdict:
    name, need = harness.stage.spec.name, harness.plan.need
    peaks = [peak_of(recording, made) for made in recording.made]
    tensors = max(peaks, key=lambda peak: peak.tensors)
    process = max((peak.process or 0 for peak in peaks), default=0)
    measured = max(tensors.tensors, process - RUNNING)
    promised = format_size(need.activations) if need.has_formula else "nothing, without a formula"
    told = f"promised: {promised}; measured: {format_size(tensors.tensors)} of tensors"
    told += f", {format_size(process)} in all" if process > RUNNING else ""
    lack = measured - need.activations
    if lack > (SCALARS if need.has_formula else RUNNING):
        at = f", most at {tensors.at}" if tensors.at and measured == tensors.tensors else ""
        advice = "add up what is alive at the greediest line: inputs, what is computed, outputs"
        return Verdict(name, MEMORY, BROKEN, f"{told}{at}; {format_size(lack)} too little", advice)
    return Verdict(name, MEMORY, OK, told)


def _finite(harness: Harness, recording: Recording) -> Verdict:
    name = harness.stage.spec.name
    leak = hidden(recording, recording.made[0])
    if leak is None:
        return Verdict(name, FINITE, OK, "no output is made of NaN or infinite numbers")
    what, output = leak
    told = f"'{output}' is made of numbers that are not finite, and nothing fails, where {what}"
    advice = f'call item.check_finite("{output}", numbers) before they become anything but a tensor'
    return Verdict(name, FINITE, BROKEN, told, advice)


def _difference(before: Content, after: Content) -> str:
    """The first output that is another one, in words; empty if there is none."""
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name):
            return f"'{name}'"
    return ""
