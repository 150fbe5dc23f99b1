"""Tests that `make test` leaves to `make test-long`, and so to the whole check: each takes 10 s to minutes.

What they try has quicker tests beside it, for other values or a part of it.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

PATTERNS = (
    "chaos/test_kills.py::test_kills?streamed-*",
    "chaos/test_damage.py::test_a_clock_that_stands_still_and_jumps",
    "chaos/test_storage.py::test_a_disk_that_is_full_or_read_only?12?",
    "docs/test_commands.py::test_they_run_as_they_are_written",
    "plugins/test_guide.py::test_a_plugin_in_ten_minutes",
    "plugins/test_guide.py::test_a_stage_with_weights",
    "plugins/test_guide.py::test_its_plugins_pass_the_checks",
    "plugins/diffusers/test_cases.py::test_cases_in_processes_of_their_own?all?",
    "plugins/diffusers/test_kills.py::*",
    "plugins/diffusers/test_simulated.py::*-all?",
    "plugins/diffusers/test_outputs.py::test_the_plugin_keeps_what_the_engine_requires",
    "plugins/diffusers/test_outputs.py::test_a_picture_is_made_again_to_the_same_bytes",
    "plugins/diffusers/memory/test_plan.py::test_the_remedy_for_a_misfit_is_measured_too",
    "plugins/diffusers/memory/test_stages.py::test_peaks_are_those_of_real_tensors?hunyuan15?",
    "plugins/diffusers/replay/test_schedulers.py::*?KDPM2*?",
    "plugins/flux/demo_model/test_training.py::test_the_checkpoint_draws_and_is_scored",
    "plugins/flux/demo_model/test_training.py::test_an_interruption_changes_nothing?vae?",
    "plugins/flux/demo_model/test_training.py::test_an_interruption_changes_nothing?transformer?",
    "plugins/flux/test_pixels.py::test_pixels_are_those_of_one_process?demo-bfloat16?",
    "plugins/flux/test_resume.py::test_a_killed_run_goes_on_from_its_last_checkpoint?resident?",
    "plugins/flux/memory/test_allocator.py::*?runner_flux.decode-*-bfloat16?",
    "runner/placement/test_odd_models.py::*?Lists-*",
    "runner/placement/test_odd_models.py::*?Kept-*",
    "runner/stream/test_device.py::test_streamed_weights_give_the_bits_of_the_cpu*-late-co*",
    "runner/worker/test_simulated.py::test_every_placement_has_the_pixels_of_the_cpu?demo-eager?",
    "runner/worker/test_simulated.py::test_every_placement_has_the_pixels_of_the_cpu?demo-late*",
    "runner/worker/test_simulated.py::test_every_placement_has_the_pixels_of_the_cpu?published-eager?",
    "runner/worker/test_simulated.py::test_every_placement_has_the_pixels_of_the_cpu?published-late-co*",
)
"""Patterns of tests' names, with the file's path below this folder; ``?`` stands for a bracket."""


def is_long(node: str) -> bool:
    """Whether a test's node id matches one of the patterns."""
    name = node.removeprefix("tests/")
    return any(fnmatchcase(name, pattern) for pattern in PATTERNS)


def stale(nodes: list[str]) -> list[str]:
    """Patterns that none of these tests matches."""
    names = [node.removeprefix("tests/") for node in nodes]
    return [pattern for pattern in PATTERNS if not any(fnmatchcase(name, pattern) for name in names)]
