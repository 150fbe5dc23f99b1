"""The transformer: rectified flow on the encoded scenes, trained together with the text encoders."""

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
# the mean of the noise levels' logits: more noise in the first half of the training, for the layout; then
# less, for the outlines
LAYOUT, EDGES = 0.8, 0.2
EMPTY_SHARE = 0.08  # of the captions are empty, for guidance
AUX_WEIGHT, TEXT_WEIGHT = 0.15, 0.3
TEXT_PACE = 0.3  # the text encoders' learning rate, as a share of the transformer's


@dataclass
class Noisy:
    """Latents mixed with noise."""

    canvas: tuple[int, int]
    latents: Tensor  # batch x tokens x 64
    noise: Tensor  # as latents
    sigma: Tensor  # batch: the share of noise

    @property
    def mixed(self) -> Tensor:
        """The input of the transformer."""
        sigma = self.sigma[:, None, None]
        return (1 - sigma) * self.latents + sigma * self.noise

    @property
    def velocity(self) -> Tensor:
        """The target of the transformer."""
        return self.noise - self.latents


@dataclass
class Batch(Noisy):
    """A batch of training examples."""

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
    """Auxiliary heads that predict from the image tokens, within the transformer, what covers their patches.

    They shorten the training: the layers learn early where things are.
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
        """The loss of the predictions in the transformer's last pass."""
        loss = torch.zeros((), device=maps.device)
        shapes, colours, position, offset = torch.split(maps, pools.COVERS, -1)
        weight = 1 + 3 * (shapes[..., -1] < 0.97).float()  # patches with some of a thing count more
        for index, head in enumerate(self.heads):
            predicted = head(self.seen[index].float()).split(pools.COVERS, -1)
            cover = _cross_entropy(predicted[0], shapes) + _cross_entropy(predicted[1], colours)
            loss = loss + (weight * cover).mean() + functional.mse_loss(predicted[2], position)
            loss = loss + 0.5 * functional.mse_loss(predicted[3], offset)
        return loss


def _cross_entropy(logits: Tensor, shares: Tensor) -> Tensor:
    return -(shares * logits.log_softmax(-1)).sum(-1)


def draw_batch(
    from_pools: Sequence[Pool],
    size: int,
    rng: np.random.Generator,
    place: Place,
    *,
    lean: float,
    empty: float,
) -> Batch:
    """Scenes of one canvas with new captions; `lean` is LAYOUT or EDGES, `empty` the share without text."""
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
    net: FluxTransformer2DModel, noisy: Noisy, embeds: tuple[Tensor, Tensor], guidance: Tensor, place: Place
) -> Tensor:
    """The transformer's prediction; `embeds` are the captions' tokens and pooled vectors."""
    tokens, pooled = embeds
    with place.autocast():
        out = net(
            hidden_states=noisy.mixed, encoder_hidden_states=tokens, pooled_projections=pooled,
            timestep=noisy.sigma, guidance=guidance, img_ids=pools.token_ids(noisy.canvas, place.device),
            txt_ids=torch.zeros(tokens.shape[1], 3, device=place.device), return_dict=False,
        )[0]  # fmt: skip
    return cast("Tensor", out.float())


class Model(text.TextModel):
    """The transformer and the text encoders, with their auxiliary heads, trained together."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.net = build()
        if place.device.type == "cpu":
            self.net.set_attn_processor(MatmulAttention())
        self.patches = PatchReader(self.net)

    def losses(self, batch: Batch, place: Place) -> tuple[Tensor, Tensor, Tensor, dict[str, float]]:
        """The losses of the flow, the patches and the text encoders, and numbers to show."""
        with place.autocast():
            tokens, pooled = self.text([caption.text for caption in batch.captions], batch.length)
        guess = velocity(self.net, batch, (tokens, pooled), torch.ones_like(batch.sigma), place)
        flow = functional.mse_loss(guess, batch.velocity)
        patches = self.patches(batch.maps)
        with_text = [index for index, caption in enumerate(batch.captions) if caption.text]
        read, notes = torch.zeros((), device=place.device), {"text": 0.0, "place": 0.0}
        if with_text:
            scenes, captions = [batch.scenes[i] for i in with_text], [batch.captions[i] for i in with_text]
            read, notes = self.read_loss(
                scenes, captions, batch.length, (tokens[with_text], pooled[with_text])
            )
        return flow, patches, read, {"flow": flow.item(), "patches": patches.item(), **notes}


def train(plan: Schedule, batch_size: int, scenes: int, place: Place) -> None:
    """Train the transformer at guidance 1 (none), and the text encoders further; writes transformer.pt."""
    from_pools = pools.load(scenes, place)
    torch.manual_seed(place.seed)
    model = Model(place).to(place.device)
    model.load_state_dict(torch.load(place.result("text.pt"), weights_only=True), strict=False)

    def loss(step: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        lean = LAYOUT if step < plan.steps / 2 else EDGES
        batch = draw_batch(from_pools, batch_size, rng, place, lean=lean, empty=EMPTY_SHARE)
        flow, patches, read, notes = model.losses(batch, place)
        fading = max(0.0, 1 - 1.15 * step / plan.steps)  # at the end only the flow counts
        return flow + AUX_WEIGHT * fading * patches + TEXT_WEIGHT * read, notes

    encoders = list(model.text.parameters())
    theirs = set(map(id, encoders))
    others = [parameter for parameter in model.parameters() if id(parameter) not in theirs]
    groups: list[dict[str, Any]] = [{"params": others}, {"params": encoders, "share": TEXT_PACE}]
    fit("transformer", model, groups, loss, plan, place)
    torch.save(model.state_dict(), place.result("transformer.pt"))


def load(place: Place, name: str = "transformer.pt") -> Model:
    """The model that `train` wrote, or one of another name."""
    model = Model(place)
    model.load_state_dict(torch.load(place.result(name), weights_only=True))
    return model.to(place.device)
