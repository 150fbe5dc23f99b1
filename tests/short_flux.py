"""A short manifest of FLUX: its three stages, one step and 32 x 32 pixels, on one thread of the CPU."""

from __future__ import annotations

ONE_ITEM = '[batch]\nprompts = ["a red circle"]\n'


def short_flux(name: str, source: str, tokens: int = 16, items: str = ONE_ITEM) -> str:
    """The manifest's text; ``items`` is what follows its stages, ``tokens`` the length that prompts are cut to."""
    return f"""
version = 1
name = "{name}"
[model]
source = "{source}"
[budget]
device = "cpu"
threads = 1
[[stage]]
name = "encode"
uses = "flux.encode"
[stage.with]
max_sequence_length = {tokens}
[[stage]]
name = "diffuse"
uses = "flux.diffuse"
[stage.with]
steps = 1
height = 32
width = 32
[[stage]]
name = "decode"
uses = "flux.decode"
{items}"""
