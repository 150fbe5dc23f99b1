"""The transformer: rectified flow on the encoded scenes, the text encoders trained along."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from diffusers import FluxTransformer2DModel
from torch import nn
from torch.nn import functional

from . import pool as pools
from . import text
from .attention import MatmulAttention
from .captions import Caption, write_caption
from .training import Place, Schedule, fit

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from torch import Tensor

    from .pool import Pool
    from .scenes import Scene

HEADS, HEAD = 5, 32  # attention heads, and channels of each
# The mean of the noise levels' logits: much noise at first, where the layout is decided; less from half-way
# on, where the outlines are.
LAYOUT, EDGES = 0.8, 0.2
EMPTY_SHARE = 0.08  # of the captions are empty, so that there is something to guide away from
AUX_WEIGHT, TEXT_WEIGHT = 0.15, 0.3
TEXT_PACE = 0.3  # the text encoders' learning rate, as a share of the transformer's


@dataclass
class Noisy:
    """Latents on the straight way to noise."""

    canvas: tuple[int, int]
    latents: Tensor  # batch x tokens x 64
    noise: Tensor  # as latents
    sigma: Tensor  # batch: how far on the way; 1 is all noise

    @property
    def here(self) -> Tensor:
        """Where on the way they are."""
        sigma = self.sigma[:, None, None]
        return (1 - sigma) * self.latents + sigma * self.noise

    @property
    def way(self) -> Tensor:
        """What the transformer is to guess."""
        return self.noise - self.latents


@dataclass
class Batch(Noisy):
    """What one step is trained on."""

    scenes: list[Scene]
    captions: list[Caption]
    length: int  # tokens that the captions are padded to
    maps: Tensor  # batch x tokens x channels, see pool


def build() -> FluxTransformer2DModel:
    """An untrained transformer in FLUX's architecture, small; it starts as the zero function."""
    net = FluxTransformer2DModel(
        patch_size=1, in_channels=64, num_layers=2, num_single_layers=4, attention_head_dim=HEAD,
        num_attention_heads=HEADS, joint_attention_dim=text.WIDTH, pooled_projection_dim=text.WIDTH,
        guidance_embeds=True, axes_dims_rope=(4, 14, 14),
    )  # fmt: skip
    modulations = ("norm1.linear", "norm1_context.linear", "norm.linear", "norm_out.linear", "proj_out")
    for name, module in net.named_modules():
        if isinstance(module, nn.Linear) and (name == "proj_out" or name.endswith(modulations[:-1])):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    return net


class PatchReader(nn.Module):
    """Reads off the image tokens, half-way through the transformer, what covers their patches.

    It is part of the training only, and what makes it short: the layers learn early where things are.
    """

    def __init__(self, net: FluxTransformer2DModel) -> None:
        super().__init__()
        width = net.inner_dim
        self.heads = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, 128), nn.SiLU(), nn.Linear(128, sum(pools.COVERS))
            )
            for _ in range(2)
        )
        self.seen: dict[int, Tensor] = {}
        for index, block in enumerate((net.transformer_blocks[-1], net.single_transformer_blocks[1])):
            block.register_forward_hook(lambda _, __, out, index=index: self.seen.__setitem__(index, out[1]))

    def forward(self, maps: Tensor) -> Tensor:
        """The loss of what was read in the transformer's last pass."""
        loss = torch.zeros((), device=maps.device)
        shapes, colours, own, way = torch.split(maps, pools.COVERS, -1)
        weight = 1 + 3 * (shapes[..., -1] < 0.97).float()  # patches with some of a thing count more
        for index, head in enumerate(self.heads):
            said = head(self.seen[index].float()).split(pools.COVERS, -1)
            cover = _cross_entropy(said[0], shapes) + _cross_entropy(said[1], colours)
            loss = loss + (weight * cover).mean() + functional.mse_loss(said[2], own)
            loss = loss + 0.5 * functional.mse_loss(said[3], way)
        return loss


def _cross_entropy(said: Tensor, shares: Tensor) -> Tensor:
    return -(shares * said.log_softmax(-1)).sum(-1)


def draw_batch(
    from_pools: Sequence[Pool],
    size: int,
    rng: np.random.Generator,
    place: Place,
    *,
    lean: float,
    empty: float,
) -> Batch:
    """Scenes of one canvas with fresh captions; `lean` is LAYOUT or EDGES, `empty` a share of captions."""
    counts = [len(pool.latents) for pool in from_pools]
    pool = from_pools[rng.choice(len(from_pools), p=[count / sum(counts) for count in counts])]
    length, part = text.draw_length(rng)
    chosen = rng.choice(len(pool.latents), min(len(pool.latents), max(1, int(size * part))), replace=False)
    scenes = [pool.scene(place.seed, int(index)) for index in chosen]
    captions = [Caption("", ()) if rng.random() < empty else write_caption(scene, rng) for scene in scenes]
    latents = pool.latents[chosen].float()
    noise = torch.randn(latents.shape)
    sigma, maps = noise_levels(len(chosen), lean), pool.maps[chosen].float()
    latents, noise, sigma, maps = (part.to(place.device) for part in (latents, noise, sigma, maps))
    return Batch(pool.canvas, latents, noise, sigma, scenes, captions, length, maps)


def noise_levels(count: int, lean: float) -> Tensor:
    """Logit-normal, as in Stable Diffusion 3 (Esser et al. 2024); `lean` is LAYOUT or EDGES."""
    return torch.sigmoid(torch.randn(count) * 1.2 + lean)


def velocity(
    net: FluxTransformer2DModel, noisy: Noisy, told: tuple[Tensor, Tensor], guidance: Tensor, place: Place
) -> Tensor:
    """The transformer's guess at `noisy.way`; `told` are the captions' tokens and pooled vectors."""
    tokens, pooled = told
    with place.autocast():
        out = net(
            hidden_states=noisy.here, encoder_hidden_states=tokens, pooled_projections=pooled,
            timestep=noisy.sigma, guidance=guidance, img_ids=pools.token_ids(noisy.canvas, place.device),
            txt_ids=torch.zeros(tokens.shape[1], 3, device=place.device), return_dict=False,
        )[0]  # fmt: skip
    return cast("Tensor", out.float())


class Model(text.TextModel):
    """All that is trained together: the transformer and the text encoders, each with its reader."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.net = build()
        if place.device.type == "cpu":
            self.net.set_attn_processor(MatmulAttention())
        self.patches = PatchReader(self.net)

    def losses(self, batch: Batch, place: Place) -> tuple[Tensor, Tensor, Tensor, dict[str, float]]:
        """Of the flow, of what the patches know, and of what the text encoders know; and numbers to show."""
        with place.autocast():
            tokens, pooled = self.text([caption.text for caption in batch.captions], batch.length)
        guess = velocity(self.net, batch, (tokens, pooled), torch.ones_like(batch.sigma), place)
        flow = functional.mse_loss(guess, batch.way)
        patches = self.patches(batch.maps)
        told = [index for index, caption in enumerate(batch.captions) if caption.text]
        read, notes = torch.zeros((), device=place.device), {"text": 0.0, "place": 0.0}
        if told:
            scenes, captions = [batch.scenes[i] for i in told], [batch.captions[i] for i in told]
            read, notes = self.read_loss(scenes, captions, batch.length, (tokens[told], pooled[told]))
        return flow, patches, read, {"flow": flow.item(), "patches": patches.item(), **notes}


def train(plan: Schedule, batch_size: int, scenes: int, place: Place) -> None:
    """Train the transformer at guidance 1 (none), beside the trained text encoders; leaves all weights."""
    from_pools = pools.load(scenes, place)
    torch.manual_seed(place.seed)
    model = Model(place).to(place.device)
    model.load_state_dict(torch.load(place.result("text.pt"), weights_only=True), strict=False)

    def loss(step: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        lean = LAYOUT if step < plan.steps / 2 else EDGES
        batch = draw_batch(from_pools, batch_size, rng, place, lean=lean, empty=EMPTY_SHARE)
        flow, patches, read, notes = model.losses(batch, place)
        fading = max(0.0, 1 - 1.15 * step / plan.steps)  # at the end the picture alone counts
        return flow + AUX_WEIGHT * fading * patches + TEXT_WEIGHT * read, notes

    encoders = list(model.text.parameters())
    theirs = set(map(id, encoders))
    others = [parameter for parameter in model.parameters() if id(parameter) not in theirs]
    groups: list[dict[str, Any]] = [{"params": others}, {"params": encoders, "share": TEXT_PACE}]
    fit("transformer", model, groups, loss, plan, place)
    torch.save(model.state_dict(), place.result("transformer.pt"))


def load(place: Place, name: str = "transformer.pt") -> Model:
    """What `train` left (or, by another name, the distillation)."""
    model = Model(place)
    model.load_state_dict(torch.load(place.result(name), weights_only=True))
    return model.to(place.device)
