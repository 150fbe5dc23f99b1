"""Activation formulas: the peak bytes of one item's tensors, in RAM on "cpu", else in VRAM.

Each formula follows the forward passes of diffusers 0.42 and transformers 5 and adds up the tensors alive at
the line with the peak, which is named beside it; tests in `tests/plugins/flux/memory` compare them with the
code. Sizes that are not a stage's own parameters (the picture's size, the text's length) come from the stages
upstream, if they are this plugin's. Imported by the supervisor: no torch here.
"""

from __future__ import annotations

from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any

from runner.api import Activations, Convolution, convolution_workspace
from runner_flux.tiles import tile_size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.api import Sizes
    from runner_flux.params import Decode, Diffuse, Encode

FLOAT32 = 4
INT64 = 8
RGB = 3
LONGEST_TEXT = 512  # tokens, the most that `max_sequence_length` allows
MLP = 4  # widths of an MLP: FluxSingleTransformerBlock's mlp_ratio, which no config sets
SCALARS = 1 << 14  # token ids, sigmas, time steps and other small tensors


def encode(params: Encode, sizes: Sizes) -> Activations:
    """Peak of CLIP or T5 on the last prompt, with the embeddings of the other prompt kept."""
    clip, t5 = sizes.configs["text_encoder"], sizes.configs["text_encoder_2"]
    tokens = params.max_sequence_length
    pooled = int(clip["hidden_size"]) * sizes.itemsize
    embeds = int(t5["d_model"]) * sizes.itemsize * tokens
    prompts = 1 if params.negative_prompt is None else 2
    kept = (prompts - 1) * (pooled + embeds)
    bias = int(t5["num_heads"]) * tokens * tokens * sizes.itemsize
    return Activations(
        peak=kept + max(_clip(clip, sizes), pooled + _t5(t5, tokens, sizes)) + SCALARS,
        # between two of T5's layers: what passes from one to the other, the embeddings, and `position_bias`
        suspended=kept + pooled + 2 * tokens * int(t5["d_model"]) * FLOAT32 + bias + SCALARS,
        tokens=tokens,
        passes=prompts,
        output_bytes=prompts * (pooled + embeds) * sizes.save_itemsize // sizes.itemsize,
    )


def _clip(config: Mapping[str, Any], sizes: Sizes) -> int:
    """CLIPMLP's QuickGELU, `input * torch.sigmoid(1.702 * input)`; prompts are padded to all positions."""
    # around it: the embeddings, the layer's input, the residual and its norm
    numbers = 4 * config["hidden_size"] + 3 * config["intermediate_size"]
    return int(config["max_position_embeddings"] * numbers * sizes.itemsize)


def _t5(config: Mapping[str, Any], tokens: int, sizes: Sizes) -> int:
    """T5Stack: its first attention, which makes the bias; an attention after it; or a feed-forward layer."""
    heads, size = config["num_heads"], sizes.itemsize
    width = tokens * config["d_model"] * size
    heads_width = tokens * heads * config["d_kv"] * size
    hidden = tokens * config["d_ff"] * size
    # transformers keeps `wo` in float32 for float16, and with it the sum passed from layer to layer
    cast = FLOAT32 / size if sizes.dtype == "float16" else 0
    passed = width * (cast or 1)
    bias = heads * tokens * tokens * size  # `position_bias`, kept from the first layer to the last
    # sdpa_attention_forward: q, k, v, output, log-sums; the bias lies transposed, `.contiguous()` copies it
    attention = 4 * heads_width + 2 * bias + _aligned(heads, tokens, sizes) + tokens * heads * FLOAT32
    # T5DenseGatedActDense: four in NewGELUActivation; or gate, line, their product, and that cast for `wo`
    feed_forward = hidden * max(4, 3 + cast)
    # _relative_position_bucket, `torch.min`: six int64 and `is_small`, tokens x tokens each, of two ranges
    buckets = 3 * heads_width + (6 * INT64 + 1) * tokens * tokens + 2 * INT64 * tokens
    moments = (
        2 * width + buckets,  # beside the embeddings and their norm
        2 * width + passed + attention,  # and the layer's input
        2 * width + 2 * passed + bias + feed_forward,  # and the sum of that and the attention
    )
    return int(max(moments))


def _aligned(heads: int, tokens: int, sizes: Sizes) -> int:
    """CUDA's memory-efficient attention takes a padded copy of a mask whose rows are no multiple of 16."""
    padded = sizes.device != "cpu" and tokens % 16 > 0
    return heads * tokens * (tokens + 16 - tokens % 16) * sizes.itemsize if padded else 0


def diffuse(params: Diffuse, sizes: Sizes) -> Activations:
    """Peak within a single block (double blocks hold less), and what the pipeline and the model keep."""
    config = sizes.configs["transformer"]
    head = config["attention_head_dim"]
    width = head * config["num_attention_heads"]
    patch = 2 * _scale(sizes.configs["vae"])
    image = (params.height // patch) * (params.width // patch)
    text = _upstream(sizes, "prompt_embeds", "max_sequence_length", LONGEST_TEXT)
    tokens = text + image
    guided = params.true_cfg_scale > 1
    # a negative prompt's embeddings are copied to the device even if they are not used
    alone = _upstream(sizes, "prompt_embeds", "negative_prompt", "") is None
    prompts = (1 if alone else 2) * (text * config["joint_attention_dim"] + config["pooled_projection_dim"])
    # FluxPipeline.__call__: the latents, the last step's predictions, the prompt's at the negative prompt's
    # turn (all four: `callback_kwargs[k] = locals()[k]` keeps what it saw up to Python 3.12)
    packed = (1 + guided) * (2 if params.steps > 1 else 1) * image * config["in_channels"]
    ids = 3 * (2 * tokens + text * guided)  # text_ids, latent_image_ids, the two joined, negative_text_ids
    modulation = (1 + 3) * width  # `temb`; AdaLayerNormZeroSingle's shift, scale and gate
    rotary = 2 * tokens * head * FLOAT32  # FluxPosEmbed's cosines and sines
    kept = (prompts + packed + ids + modulation) * sizes.itemsize + rotary
    state = tokens * width * sizes.itemsize
    return Activations(
        peak=int(kept + _single_block(tokens, width, sizes.itemsize) + SCALARS),
        suspended=int(kept + state + SCALARS),  # between two blocks: what passes from one to the other
        tokens=tokens,
        passes=params.steps * (2 if guided else 1),
        output_bytes=image * config["in_channels"] * sizes.save_itemsize,
    )


def _single_block(tokens: int, width: int, size: int) -> int:
    """FluxSingleTransformerBlock.forward on text and image joined."""
    state = tokens * width * size
    mlp = MLP * state
    # apply_rotary_emb, `x.float() * cos + x_rotated.float() * sin`: q, k, v, x_rotated, and three in float32
    rotation = 4 * state + 3 * tokens * width * FLOAT32
    # `gate * self.proj_out(hidden_states)`: the attention, its `torch.cat` with the MLP, projection, product
    projection = state + (state + mlp) + state + state
    # beside the block's two inputs, their `torch.cat` (the residual), its norm, and the MLP's activation
    return 3 * state + mlp + max(rotation, projection)


def decode(params: Decode, sizes: Sizes) -> Activations:
    """Peak of the decoder, of joining the tiles, or of the conversion to a PNG.

    If the picture's size is unknown, 1024 x 1024 is assumed. With FLUX.1's VAE and ``tiling = "auto"``, other
    pictures of up to 50 million pixels need no more.
    """
    vae = sizes.configs["vae"]
    height = _upstream(sizes, "latents", "height", 1024)
    width = _upstream(sizes, "latents", "width", 1024)
    rows, columns = height // _scale(vae), width // _scale(vae)
    # scaled, and as received; the latter stay in RAM
    latents = (2 if sizes.device == "cpu" else 1) * rows * columns * vae["latent_channels"] * sizes.itemsize
    side = (tile_size(params.tiling, height, width) or max(height, width)) // _scale(vae)
    tiled = max(rows, columns) > side
    decoded = _tiles(vae, rows, columns, side, sizes) if tiled else _decoder(vae, rows * columns, sizes)
    pixels = RGB * height * width  # a PNG of noise is as large
    return Activations(
        peak=int(latents + max(decoded, _postprocess(pixels, sizes)) + SCALARS),
        output_bytes=pixels,
        operations=_decoding(vae, sum(map(prod, _cut(rows, columns, side))) if tiled else rows * columns),
    )


def _postprocess(numbers: int, sizes: Sizes) -> int:
    """VaeImageProcessor.postprocess: bytes with the decoder's output."""
    if sizes.device != "cpu":
        return 3 * numbers * sizes.itemsize  # denormalize: `(images * 0.5 + 0.5).clamp(0, 1)`
    return numbers * (sizes.itemsize + 3 * FLOAT32)  # numpy_to_pil: `(images * 255).round()`


def _tiles(vae: Mapping[str, Any], rows: int, columns: int, side: int, sizes: Sizes) -> int:
    """AutoencoderKL.tiled_decode: all tiles are kept, joined to rows, and these to the picture."""
    pixels = RGB * _scale(vae) ** 2 * sizes.itemsize  # of one latent
    tiles = _cut(rows, columns, side)
    decoder = {latents: _decoder(vae, latents, sizes) for latents in set(map(prod, tiles))}
    kept = most = 0
    for height, width in tiles:
        most = max(most, kept + decoder[height * width])
        kept += height * width * pixels
    return max(most, kept + 2 * rows * columns * pixels)


def _cut(rows: int, columns: int, side: int) -> list[tuple[int, int]]:
    """Heights and widths of the tiles, which overlap, in latents."""
    stride = side * 3 // 4  # tile_overlap_factor is 0.25
    heights, widths = ([min(side, n - at) for at in range(0, n, stride)] for n in (rows, columns))
    return list(product(heights, widths))


def _decoding(vae: Mapping[str, Any], latents: int) -> int:
    """Operations of Decoder.forward: two for each weight of a convolution and each of its pixels."""
    widths = list(reversed(vae["block_out_channels"]))
    weights, pixels, before = 4 * 9 * widths[0] ** 2, latents, widths[0]  # of the middle block's ResNets
    total = weights * pixels
    for n, width in enumerate(widths):
        resnets = 9 * (before + width) * width + vae["layers_per_block"] * 18 * width**2
        total += resnets * pixels
        if n + 1 < len(widths):
            pixels, before = 4 * pixels, width
            total += 9 * width**2 * pixels
    return int(2 * total)


def _decoder(vae: Mapping[str, Any], latents: int, sizes: Sizes) -> int:
    """Peak of Decoder.forward on that many latents; its middle block holds less than the last ones."""
    widths = list(reversed(vae["block_out_channels"]))
    pixels, before, most = latents, widths[0], 0
    for n, width in enumerate(widths):
        entered = before * pixels * sizes.itemsize  # Decoder.forward holds a block's input to its end
        first, others = _resnet(before, width, pixels, sizes), _resnet(width, width, pixels, sizes)
        most = max(most, first, entered + others)
        if n + 1 < len(widths):
            # Upsample2D: its input, `F.interpolate` of it, and the convolution of that
            upsampled = (1 + 4 + 4) * width * pixels * sizes.itemsize
            most = max(most, entered + upsampled + _convolution(width, width, 4 * pixels, sizes))
            pixels, before = 4 * pixels, width
    return most


def _resnet(before: int, width: int, pixels: int, sizes: Sizes) -> int:
    """Peak of ResnetBlock2D.forward from `before` channels to `width`; the caller holds its input."""
    shortcut = before != width
    moments = [
        (3 * before, 0),  # norm1, SiLU
        (2 * before + width, _convolution(before, width, pixels, sizes)),  # conv1
        (before + 2 * width, _convolution(width, width, pixels, sizes)),  # conv2
        (before + (3 + shortcut) * width, 0),  # `(input_tensor + hidden_states) / self.output_scale_factor`
    ]
    if shortcut:
        moments.append((before + 2 * width, _convolution(before, width, pixels, sizes, side=1)))
    return max(channels * pixels * sizes.itemsize + kernel for channels, kernel in moments)


def _convolution(before: int, width: int, pixels: int, sizes: Sizes, side: int = 3) -> int:
    """Workspace of a convolution's kernel beside its source and result."""
    return convolution_workspace(sizes, Convolution(before, width, pixels, pixels, side * side))


def _upstream(sizes: Sizes, made: str, name: str, default: Any) -> Any:
    """A parameter of the stage that makes the input, or the default if that stage has none of this name."""
    return getattr(sizes.upstream.get(made), name, default)


def _scale(vae: Mapping[str, Any]) -> int:
    """Pixels per latent along a side."""
    return int(2 ** (len(vae["block_out_channels"]) - 1))
