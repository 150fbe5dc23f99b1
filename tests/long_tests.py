"""Tests that `make test` leaves to `make test-long`, and so to the whole check: each takes 10 s to minutes.

What they try has quicker tests beside it, for other values or a part of it.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

PATTERNS = (
    "tests/chaos/test_damage.py::test_a_clock_that_stands_still_and_jumps",
    "tests/chaos/test_kills.py::test_kills?streamed-*",
    "tests/chaos/test_storage.py::test_a_disk_that_is_full_or_read_only?12?",
    "tests/docs/test_commands.py::test_they_run_as_they_are_written",
    "tests/plugins/diffusers/memory/test_plan.py::test_the_remedy_for_a_misfit_is_measured_too",
    *(
        f"tests/plugins/diffusers/memory/test_stages.py::test_peaks_are_those_of_real_tensors?{name}?"
        for name in ("auraflow", "chroma", "hunyuan15", "klein", "ltx", "qwen", "sd3", "sdxl", "wan_i2v")
    ),
    "tests/plugins/diffusers/memory/test_stages.py::test_smaller_tiles_need_less",
    *(
        f"tests/plugins/diffusers/memory/test_formulas.py::test_configs_alone_give_nearly_the_same?{name}?"
        for name in ("hunyuan15", "sdxl", "zimage")
    ),
    "tests/plugins/diffusers/replay/test_schedulers.py::*?KDPM2*?",
    "tests/plugins/diffusers/test_cases.py::test_a_case_that_is_interrupted_and_resumed?*-bfloat16?",
    "tests/plugins/diffusers/test_cases.py::test_cases_in_processes_of_their_own?all?",
    "tests/plugins/diffusers/test_kills.py::*",
    "tests/plugins/diffusers/test_loras.py::test_beside_quantised_weights_that_stream?int8?",
    "tests/plugins/diffusers/test_loras.py::test_beside_quantised_weights_that_stream?LLM.int8?",
    "tests/plugins/diffusers/test_loras.py::test_beside_quantised_weights_that_stream?nf4 double?",
    "tests/plugins/diffusers/test_lockstep.py::test_streamed_together_is_resident_one_by_one?qwen-*",
    "tests/plugins/diffusers/test_lockstep.py::test_streamed_together_is_resident_one_by_one?sd3-*",
    "tests/plugins/diffusers/test_lockstep.py::test_streamed_together_is_resident_one_by_one?sdxl_inpaint-*",
    "tests/plugins/diffusers/test_loras.py::*?sdxl-bfloat16-resident?",
    "tests/plugins/diffusers/test_loras.py::*?sdxl-float32-stream?",
    "tests/plugins/flux/test_loras.py::*?resident?",
    "tests/plugins/diffusers/test_outputs.py::test_a_picture_is_made_again_to_the_same_bytes",
    "tests/plugins/diffusers/test_outputs.py::test_the_plugin_keeps_what_the_engine_requires",
    "tests/plugins/diffusers/test_simulated.py::*",
    "tests/plugins/diffusers/test_tiling.py::*?AutoencoderKLCogVideoX?",
    "tests/plugins/diffusers/test_tiling.py::*?AutoencoderKLHunyuanVideo15?",
    "tests/plugins/diffusers/test_tiling.py::*?AutoencoderKLMagvit?",
    "tests/plugins/diffusers/test_tiling.py::*?AutoencoderVidTok?",
    *(
        f"tests/plugins/diffusers/test_weights.py::test_the_same_as_in_one_process?{form}?"
        for form in (
            "Q8_0*",
            "Q4_0",
            "Q4_0 fused",
            "BF16",
            "original names",
            "fp8 scaled",
            "fp8 scaled by rows",
            "stored *",
            "quantize fp8",
            "NF4, plain scales",
            "FP4",
            "NF4 of a UNet",
            "LLM.int8",
            "LLM.int8 of a UNet",
        )
    ),
    "tests/plugins/flux/demo_model/test_training.py::*",
    "tests/plugins/flux/memory/test_allocator.py::*?runner_flux.decode-*-bfloat16?",
    "tests/plugins/flux/test_pixels.py::test_pixels_are_those_of_one_process?demo-bfloat16?",
    "tests/plugins/flux/test_pixels.py::test_pixels_of_weights_that_bitsandbytes_has_quantised?LLM.int8?",
    "tests/plugins/flux/test_resume.py::test_a_killed_run_goes_on_from_its_last_checkpoint?resident?",
    "tests/plugins/test_guide.py::test_a_plugin_in_ten_minutes",
    "tests/plugins/test_guide.py::test_a_stage_with_weights",
    "tests/plugins/test_guide.py::test_its_plugins_pass_the_checks",
    "tests/runner/cli/commands/test_reproduce.py::test_a_model_of_the_hub_is_fetched_again_at_its_commit",
    "tests/runner/cli/commands/test_reproduce.py::test_twenty_of_twenty_pictures_of_a_mixed_batch",
    "tests/runner/model/test_fingerprint.py::test_a_file_changed_while_it_is_hashed_is_hashed_again",
    "tests/runner/placement/test_odd_models.py::*?Counting-*",
    "tests/runner/placement/test_odd_models.py::*?Kept-*",
    "tests/runner/placement/test_odd_models.py::*?Lists-*",
    "tests/runner/plan/test_full_width.py::*",
    *(
        f"tests/runner/placement/test_weight_forms.py::test_each_form_has_the_bits_of_diffusers?{form}?"
        for form in ("IQ4_NL", "IQ4_XS", "Q2_K", "Q3_K", "Q4_1", "Q5_0", "Q5_1", "Q5_K")
    ),
    "tests/runner/placement/test_weight_forms.py::test_each_form_on_an_accelerator?fp8?",
    "tests/runner/placement/test_weight_forms.py::test_each_form_on_an_accelerator?nf4 double?",
    "tests/runner/placement/test_weight_forms.py::test_each_form_on_an_accelerator?Q8_0?",
    "tests/runner/remote/test_fleet.py::test_a_signal_ends_it_at_once_and_it_goes_on_later?15?",
    "tests/runner/remote/test_fleet.py::*_goes_on_from_there?to the run?",
    "tests/runner/remote/test_fleet_elsewhere.py::test_a_model_at_another_path_and_fewer_cores_give_the_same_bytes",
    "tests/runner/remote/test_fleet_elsewhere.py::test_a_run_without_the_model_takes_it_that_the_nodes_have",
    "tests/runner/remote/test_fleet_elsewhere.py::test_what_is_not_needed_any_more_is_kept_neither_here_nor_there",
    "tests/runner/remote/test_fleet_elsewhere.py::test_what_takes_too_long_on_one_node_is_made_by_another_as_well*",
    "tests/runner/remote/test_fleet_models.py::*?resident?",
    "tests/runner/stream/test_device.py::test_streamed_weights_give_the_bits_of_the_cpu*-late-co*",
    "tests/runner/worker/test_simulated.py::test_every_placement_has_the_pixels_of_the_cpu?adapted-eager?",
    "tests/runner/worker/test_simulated.py::test_every_placement_has_the_pixels_of_the_cpu?adapted-late-co*",
    "tests/runner/worker/test_simulated.py::test_every_placement_has_the_pixels_of_the_cpu?adapted-random?",
    "tests/runner/worker/test_simulated.py::test_every_placement_has_the_pixels_of_the_cpu?demo-eager?",
    "tests/runner/worker/test_simulated.py::test_every_placement_has_the_pixels_of_the_cpu?demo-late*",
    "tests/runner/worker/test_simulated.py::test_every_placement_has_the_pixels_of_the_cpu?published-eager?",
    "tests/runner/worker/test_simulated.py::test_every_placement_has_the_pixels_of_the_cpu?published-late*",
    "tests/runner/worker/test_simulated.py::test_every_placement_has_the_pixels_of_the_cpu?published-random?",
)
"""Patterns of tests' node ids; ``?`` stands for a bracket."""


def is_long(node: str) -> bool:
    """Whether a test's node id matches one of the patterns."""
    return any(fnmatchcase(node, pattern) for pattern in PATTERNS)


def stale(nodes: list[str]) -> list[str]:
    """Patterns that none of these tests matches."""
    return [pattern for pattern in PATTERNS if not any(fnmatchcase(node, pattern) for node in nodes)]
