"""The two text encoders, pretrained to predict the scene from its caption."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from . import vocabulary
from .captions import Caption, write_caption
from .scenes import COLOUR_NAMES, SIDE, Scene, draw_scene, nominal_spots
from .shapes import SHAPES
from .training import Place, Schedule, fit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

WIDTH = 128  # channels, of both encoders
SHORT = 24  # tokens: the longest caption has 21
# T5's padding is attended to. Its lengths, their shares in training, and the parts of the batch they allow:
LENGTHS = ((SHORT, 0.86, 1.0), (64, 0.11, 0.5), (128, 0.01, 0.25), (256, 0.01, 0.125), (512, 0.01, 0.0625))
OF_THING = len(SHAPES) + len(COLOUR_NAMES) + 3  # predictions for a thing: shape, colour, x, y, radius


@dataclass
class Reading:
    """The targets of Reader for a batch of captions."""

    background: Tensor  # batch, an index of COLOUR_NAMES
    kinds: Tensor  # batch x 2 things x (shape, colour), indices; shape -1 where there is no second thing
    spots: Tensor  # batch x 2 things x (x, y, radius), in half canvases
    owner: Tensor  # batch x tokens: the thing that a T5 token belongs to, or -1


class TextEncoders(nn.Module):
    """CLIP's text encoder and T5's, with their tokenizers."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.clip_tokenizer, self.t5_tokenizer = vocabulary.load(place)
        tokenizer = self.clip_tokenizer
        self.clip = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=2 * WIDTH,
                projection_dim=WIDTH, num_hidden_layers=2, num_attention_heads=4,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
                attn_implementation="eager",
            )
        )  # fmt: skip
        self.t5 = T5EncoderModel(
            T5Config(
                vocab_size=len(self.t5_tokenizer), d_model=WIDTH, d_kv=32, d_ff=2 * WIDTH, num_layers=3,
                num_heads=4, feed_forward_proj="gated-gelu", dropout_rate=0.0, is_encoder_decoder=False,
                use_cache=False, pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
                attn_implementation="eager",
            )
        )  # fmt: skip

    def forward(self, captions: Sequence[str], length: int) -> tuple[Tensor, Tensor]:
        """T5's tokens (batch x length x WIDTH) and CLIP's pooled vectors (batch x WIDTH)."""
        device = self.t5.device
        padded = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
        t5_ids = self.t5_tokenizer(list(captions), max_length=length, **padded).input_ids
        clip_ids = self.clip_tokenizer(list(captions), max_length=vocabulary.CLIP_LENGTH, **padded).input_ids
        # CLIP is causal and pools at the first end mark: what follows the longest caption's can be cut.
        used = int((clip_ids != self.clip_tokenizer.eos_token_id).sum(1).max()) + 1
        tokens = self.t5(t5_ids.to(device))[0].float()
        return tokens, self.clip(clip_ids[:, :used].to(device)).pooler_output.float()

    def owners(self, captions: Sequence[Caption], length: int) -> Tensor:
        """The thing that each T5 token belongs to: batch x length, -1 for none."""
        texts = [caption.text for caption in captions]
        encoded = self.t5_tokenizer(
            texts, padding="max_length", max_length=length, truncation=True, return_offsets_mapping=True
        )
        offsets = np.asarray(encoded.offset_mapping)
        start, end = offsets[..., 0], offsets[..., 1]
        owner = np.full(start.shape, -1)
        for row, caption in enumerate(captions):
            for index, (first, last) in enumerate(caption.spans):
                owner[row, (end[row] > first) & (start[row] < last) & (end[row] > start[row])] = index
        return torch.from_numpy(owner)


class Reader(nn.Module):
    """Auxiliary heads that predict the scene from the encoders' outputs, to train the encoders."""

    def __init__(self) -> None:
        super().__init__()
        self.of_token = nn.Linear(WIDTH, 1 + len(COLOUR_NAMES) + OF_THING)
        self.of_pooled = nn.Linear(WIDTH, len(COLOUR_NAMES) + 2 * OF_THING)

    def forward(self, tokens: Tensor, pooled: Tensor, truth: Reading) -> tuple[Tensor, dict[str, float]]:
        """The loss, and the tokens' mean position error (rms, half canvases)."""
        colours = len(COLOUR_NAMES)
        named, ground, of_thing = self.of_token(tokens).split([1, colours, OF_THING], -1)
        owned = truth.owner >= 0
        rows, _ = owned.nonzero(as_tuple=True)
        owner = truth.owner[owned]
        loss = functional.binary_cross_entropy_with_logits(named[..., 0], owned.float())
        loss = loss + 0.5 * functional.cross_entropy(
            ground.flatten(0, 1), truth.background[:, None].expand(owned.shape).flatten()
        )
        token_loss, error = _thing_loss(of_thing[owned], truth.kinds[rows, owner], truth.spots[rows, owner])
        ground, of_things = self.of_pooled(pooled).split([colours, 2 * OF_THING], -1)
        there = truth.kinds[..., 0] >= 0
        of_thing = of_things.unflatten(-1, (2, OF_THING))[there]
        pooled_loss, _ = _thing_loss(of_thing, truth.kinds[there], truth.spots[there])
        loss = loss + token_loss + pooled_loss + functional.cross_entropy(ground, truth.background)
        return loss, {"text": loss.item(), "place": error}


def _thing_loss(predicted: Tensor, kinds: Tensor, spots: Tensor) -> tuple[Tensor, float]:
    shape, colour, spot = torch.split(predicted, [len(SHAPES), len(COLOUR_NAMES), 3], -1)
    error = functional.mse_loss(spot, spots)
    kind = functional.cross_entropy(shape, kinds[:, 0]) + functional.cross_entropy(colour, kinds[:, 1])
    return kind + 6 * error, error.item() ** 0.5


def reading(scenes: Sequence[Scene], owner: Tensor, device: torch.device) -> Reading:
    """The targets for these scenes; positions are those on the square canvas, and scale with others."""
    kinds, spots = np.full((len(scenes), 2, 2), -1), np.zeros((len(scenes), 2, 3), np.float32)
    for row, scene in enumerate(scenes):
        for index, (thing, spot) in enumerate(zip(scene.things, nominal_spots(scene), strict=True)):
            kinds[row, index] = SHAPES.index(thing.shape), COLOUR_NAMES.index(thing.colour)
            spots[row, index] = spot.x * 2 / SIDE - 1, spot.y * 2 / SIDE - 1, spot.radius * 2 / SIDE
    background = torch.tensor([COLOUR_NAMES.index(scene.background) for scene in scenes])
    parts = (background, torch.from_numpy(kinds), torch.from_numpy(spots), owner)
    return Reading(*(part.to(device) for part in parts))


def draw_length(rng: np.random.Generator) -> tuple[int, float]:
    """A random padding length, and the share of a full batch that it allows."""
    length, _, part = LENGTHS[rng.choice(len(LENGTHS), p=[share for _, share, _ in LENGTHS])]
    return length, part


class TextModel(nn.Module):
    """The encoders with their auxiliary heads."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.text = TextEncoders(place)
        self.reader = Reader()

    def read_loss(
        self, scenes: Sequence[Scene], captions: Sequence[Caption], length: int, embeds: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, dict[str, float]]:
        """The loss of the auxiliary heads on the encoders' outputs, see Reader."""
        truth = reading(scenes, self.text.owners(captions, length), embeds[0].device)
        loss, notes = self.reader(*embeds, truth)
        return loss, notes


def train(plan: Schedule, batch: int, place: Place) -> None:
    """Train both encoders with their auxiliary heads; writes text.pt."""
    torch.manual_seed(place.seed)
    model = TextModel(place).to(place.device)

    def loss(_: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        length, part = draw_length(rng)
        scenes = [draw_scene(rng) for _ in range(max(1, int(batch * part)))]
        captions = [write_caption(scene, rng) for scene in scenes]
        with place.autocast():
            embeds = model.text([caption.text for caption in captions], length)
        return model.read_loss(scenes, captions, length, embeds)

    fit("text", model, [{"params": list(model.parameters())}], loss, plan, place)
    torch.save(model.state_dict(), place.result("text.pt"))
