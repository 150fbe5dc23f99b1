"""Whether a pipeline can be split into encode, denoise and decode; if it cannot, why."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from runner_diffusers.pipelines import calls
from runner_diffusers.pipelines.roles import Role, declared_roles

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner_diffusers.pipelines.calls import Use
    from runner_diffusers.pipelines.source import SourceClass

ENCODES = ("encode", "_encode", "encode_video", "quantize")
"""Methods by which components of the decode stage, such as a VAE, encode pictures, clips or sound."""
DECODES = (calls.CALL, "decode", "_decode", "decode_to_image", "decode_to_mesh", "apply_watermark")
"""Methods by which components of the decode stage make the result, or change it."""
NOT_ENCODING = ("to", "eval", "parameters", "modules", "get_input_embeddings", "final_layer_norm")
"""Methods and submodules of text encoders that pipelines call, and that encode no text when called alone.

Calls of all other methods of encoders count as encoding.
"""

ENCODER, ENCODE_PICTURE, DENOISE, DECODE = "encoder", "picture encoder", "denoiser", "decoder"

TAKEN_ANYWAY: Mapping[str, str] = {
    # it calls the VAE and the transformer in turn for each further picture, before its denoising loop
    "GlmImagePipeline": "with at most one picture",
}
"""Pipelines that are accepted, though the order of calls in their source forbids to split them in general.

The value says for which items they can be split; `runner_diffusers.pipelines.checks` refuses all others.
"""

REFUSED: Mapping[str, str] = {
    "Cosmos": "its safety checker, of the package cosmos_guardrail, runs before and after the loop",
    "LEditsPP": "its loop goes on from what another method of it, invert(), made of a picture",
    "Onnx": "it runs ONNX files, and the stages run weights in safetensors files",
    "Flax": "it runs on JAX",
}
"""Pipelines that cannot be split, with a reason that the order of calls in their source does not show.

A key is what the names of such pipelines begin with.
"""


@cache
def reason_against(cls: SourceClass) -> str:
    """Why a pipeline cannot be split, in words that continue a sentence; empty if it can be."""
    for beginning, reason in REFUSED.items():
        if cls.name.startswith(beginning):
            return reason
    if cls.name in TAKEN_ANYWAY:
        return ""
    return _reason(cls)


def _reason(cls: SourceClass) -> str:
    used = [(kind, use) for use in calls.uses(cls) if (kind := _kind(cls, use))]
    denoising = [n for n, (kind, _) in enumerate(used) if kind == DENOISE]
    loops = {used[n][1].loop for n in denoising} - {0}
    if not loops:
        return "it has no denoising loop of its own (a prior, an upsampler, or several pipelines in one)"
    for n, (kind, use) in enumerate(used):
        if kind == DENOISE:
            continue
        at = f"({use.place})"
        if use.loop in loops:
            return f"{use.component}, the {kind}, is called inside the denoising loop {at}"
        if kind == DECODE and n < denoising[-1]:
            return f"{use.component}, the {kind}, is called before the denoising is done {at}"
        if kind in (ENCODER, ENCODE_PICTURE) and denoising[0] < n < denoising[-1]:
            return f"{use.component}, the {kind}, is called between two denoising loops {at}"
        if kind == ENCODER and n > denoising[-1]:
            return f"{use.component}, the {kind}, is called again after the denoising loop {at}"
    return ""


def encodes_pictures(cls: SourceClass) -> frozenset[str]:
    """The decoders whose other half the pipeline uses: ``vae`` where it calls ``vae.encode``."""
    return frozenset(use.component for use in calls.uses(cls) if _kind(cls, use) == ENCODE_PICTURE)


def _kind(cls: SourceClass, use: Use) -> str:
    role = declared_roles(cls).get(use.component)
    if role in (None, Role.AUXILIARY):
        return ""
    if role is Role.DECODE:
        if use.method in ENCODES:
            return ENCODE_PICTURE
        return DECODE if use.method in DECODES else ""
    if role is Role.ENCODE:
        return "" if use.method.rpartition(".")[2] in NOT_ENCODING else ENCODER
    return DENOISE if use.method == calls.CALL else ""


@cache
def encoding_methods(cls: SourceClass) -> frozenset[str]:
    """The methods that ``__call__`` calls in which an encoder computes, such as ``encode_prompt``."""
    return frozenset(use.within for use in calls.uses(cls) if _kind(cls, use) == ENCODER) - {""}


@cache
def methods_called(cls: SourceClass) -> Mapping[str, frozenset[str]]:
    """The methods of encoders and decoders that a pipeline calls, by component, if they compute something."""
    found: dict[str, set[str]] = {}
    for use in calls.uses(cls):
        if "." not in use.method and _kind(cls, use) not in ("", DENOISE):
            found.setdefault(use.component, set()).add(use.method)
    return {component: frozenset(methods) for component, methods in found.items()}
