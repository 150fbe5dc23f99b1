"""The checks, and what comes of one. ``runner plugins check`` and ``runner.testing`` make the same ones."""

from __future__ import annotations

from dataclasses import dataclass

LOADS, IMPORTS, HOOKS = "loads", "imports", "hooks"
PARAMS, FORMULA = "params", "formula"
RUNS, OUTPUTS, REPEATS = "runs", "outputs", "repeats"
INTERLEAVES, STREAMS, RESUMES, FINITE, MEMORY = "interleaves", "streams", "resumes", "finite", "memory"

PLUGIN_CHECKS = {
    LOADS: "the module imports, speaks this runner's API, and declares its hooks and stages rightly",
    IMPORTS: "importing it, its parameter models and formulas imports nothing heavy, such as torch or numpy",
    HOOKS: "every hook is one that this runner knows",
}
STAGE_CHECKS = {
    PARAMS: "the parameters' model refuses unknown keys, describes its fields, and survives pickling",
    FORMULA: "there is a memory formula, if tensors or weights pass through it",
}
TRIALS = {
    RUNS: "it makes two items in a worker, each within its time",
    OUTPUTS: "it returns what it declares: names, types, shapes, finite numbers",
    REPEATS: "an item made again is the same to the bit, whatever was made in between",
    INTERLEAVES: "two items made in turns, step by step and block by block, are those made alone",
    STREAMS: "items whose weights are streamed are those made with all weights resident",
    RESUMES: "an item that is interrupted and goes on from its saved state is one made at one go",
    FINITE: "an item fails whose numbers become NaN or infinite, whatever would be made of them",
    MEMORY: "the memory formula is no less than the measured peak",
}
"""What is found by running a stage."""

OK, WARN, BROKEN, NOT_RUN = "ok", "warn", "broken", "not run"


@dataclass(frozen=True)
class Verdict:
    """What came of one check, and what to do about it."""

    subject: str
    """The plugin's name, or the stage's, or the manifest."""
    check: str
    status: str
    told: str = ""
    advice: str = ""
    log: str = ""
    """The end of what was printed, where it may tell more."""
