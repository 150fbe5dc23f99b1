"""Whether an item's sound is as the model takes it: samples a second, and channels."""

from __future__ import annotations

import ast
import shlex
from typing import TYPE_CHECKING, Any

from runner.api import Problem
from runner_diffusers.pipelines import calls, source

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from runner_diffusers.media.probe import Probe

ENCODER = "vae"
"""The component that encodes the sound."""
RATE, CHANNELS = "sampling_rate", "audio_channels"
"""What it takes, as keys of its config."""
MIXED = "initial_audio_waveforms"
"""The keyword whose pipeline makes stereo of mono, and mono of stereo, itself."""
STEREO = 2


def problems(
    keyword: str, path: Path, look: Probe, configs: Mapping[str, Mapping[str, Any]]
) -> Iterator[Problem]:
    """Report a sound of another rate, or of other channels, than the model takes: nothing converts it."""
    config = configs.get(ENCODER, {})
    rate, channels = _taken(config, RATE), _taken(config, CHANNELS)
    if rate is None:
        yield Problem(
            f"{path}: it has {look.rate} samples a second, and this model's files do not tell how many it "
            "takes: make sure that it takes these",
            keyword,
            warning=True,
        )
    wrong, options = [], []
    if rate is not None and look.rate != rate:
        wrong.append(f"{look.rate} samples a second, and this model takes {rate}")
        options.append(f"-ar {rate}")
    is_mixed = keyword == MIXED and look.channels <= STEREO
    if channels is not None and look.channels != channels and not is_mixed:
        wrong.append(f"{look.channels} channels, and this model takes {channels}")
        options.append(f"-ac {channels}")
    if wrong:
        converted = path.with_name(f"{path.stem}_converted.wav")
        command = f"ffmpeg -i {shlex.quote(str(path))} {' '.join(options)} {shlex.quote(str(converted))}"
        yield Problem(
            f"{path}: it has {'; and '.join(wrong)}: convert it, and name the new file: {command}", keyword
        )


def _taken(config: Mapping[str, Any], name: str) -> int | None:
    """A number of the component's config, or the default of its class; None if neither has it."""
    if isinstance(value := config.get(name), int):
        return value
    cls = source.find(str(config.get("_class_name")))
    parameter = calls.init_parameters(cls).get(name) if cls is not None else None
    if parameter is None or not isinstance(parameter.default, ast.Constant):
        return None
    return parameter.default.value if isinstance(parameter.default.value, int) else None
