"""The names of the checks and their verdicts, shared by ``runner plugins check`` and ``runner.testing``."""

from __future__ import annotations

from dataclasses import dataclass

LOADS, IMPORTS, HOOKS = "loads", "imports", "hooks"
PARAMS, FORMULA = "params", "formula"
RUNS, OUTPUTS, REPEATS = "runs", "outputs", "repeats"
INTERLEAVES, STREAMS, RESUMES, FINITE, MEMORY = "interleaves", "streams", "resumes", "finite", "memory"

PLUGIN_CHECKS = {
    LOADS: "the module imports, is written for this runner's API version, and its declarations are valid",
    IMPORTS: "importing it, its parameter models and formulas imports nothing heavy, such as torch or numpy",
    HOOKS: "every hook is one that this runner knows",
}
STAGE_CHECKS = {
    PARAMS: "the parameter model refuses unknown keys, describes its fields, and survives pickling",
    FORMULA: "there is a memory formula, if the stage has tensors or weights",
}
RUN_CHECKS = {
    RUNS: "it makes two items in a worker within the time limit",
    OUTPUTS: "its outputs are as declared: names, types, shapes, finite numbers",
    REPEATS: "an item made again is bit-identical, whatever was made in between",
    INTERLEAVES: "two items made in turns, step by step and block by block, are bit-identical to each alone",
    STREAMS: "items made with streamed weights are bit-identical to those made with resident weights",
    RESUMES: "an item resumed from its saved state is bit-identical to one made without interruption",
    FINITE: "an item fails if its numbers become NaN or infinite, whatever output is made of them",
    MEMORY: "the memory formula predicts no less than the measured peak",
}
"""Checks that run the stage."""

OK, WARN, BROKEN, NOT_RUN = "ok", "warn", "broken", "not run"


@dataclass(frozen=True)
class Verdict:
    """The result of one check."""

    subject: str
    """The plugin's name, the stage's name, or the manifest's path."""
    check: str
    status: str
    """``OK``, ``WARN``, ``BROKEN`` or ``NOT_RUN``."""
    message: str = ""
    advice: str = ""
    """What to do about it."""
    log: str = ""
    """The end of what the check printed, if it may help."""
