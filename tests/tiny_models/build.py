"""Writes tiny checkpoints to folders, once for each process of tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tiny_models import clips, images, stable_diffusion, unusual

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

PIPELINES: Mapping[str, Callable[[], Any]] = {
    function.__name__: function
    for function in (
        stable_diffusion.sd15,
        stable_diffusion.sdxl,
        stable_diffusion.sdxl_controlnet,
        stable_diffusion.sd3,
        images.flux,
        images.kontext,
        images.flux_fill,
        images.qwen,
        images.zimage,
        images.klein,
        images.chroma,
        images.pixart,
        images.auraflow,
        clips.wan21,
        clips.wan22,
        clips.wan_i2v,
        clips.wan_ti2v,
        clips.ltx,
        clips.ltx091,
        clips.cogvideox,
        clips.hunyuan15,
        unusual.svd,
        unusual.bria,
        unusual.klein_kv,
        unusual.sdxl_adapter,
        unusual.vace,
    )
}


def checkpoint(name: str, folder: Path) -> Path:
    """The folder of a checkpoint under ``folder``; it is written if it is not there."""
    path = folder / name
    if not path.exists():
        PIPELINES[name]().save_pretrained(path)
    return path
