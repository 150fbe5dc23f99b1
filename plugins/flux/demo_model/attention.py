"""Attention as plain matrix products, for training on CPU.

The fused kernel's backward pass takes a third of a step there in bfloat16.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch

if TYPE_CHECKING:
    from diffusers.models.transformers.transformer_flux import FluxAttention
    from torch import Tensor


class MatmulAttention:
    """Computes what diffusers' FluxAttnProcessor does."""

    def __call__(
        self,
        attn: FluxAttention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Attend over batch x tokens x channels; with text tokens beside them, both parts are returned."""
        assert attention_mask is None
        assert image_rotary_emb is not None
        size = (-1, attn.head_dim)
        query = attn.norm_q(attn.to_q(hidden_states).unflatten(-1, size))
        key = attn.norm_k(attn.to_k(hidden_states).unflatten(-1, size))
        value = attn.to_v(hidden_states).unflatten(-1, size)
        if encoder_hidden_states is not None:
            text_query = attn.norm_added_q(attn.add_q_proj(encoder_hidden_states).unflatten(-1, size))
            text_key = attn.norm_added_k(attn.add_k_proj(encoder_hidden_states).unflatten(-1, size))
            text_value = attn.add_v_proj(encoder_hidden_states).unflatten(-1, size)
            query, key = torch.cat([text_query, query], 1), torch.cat([text_key, key], 1)
            value = torch.cat([text_value, value], 1)
        query = _rotate(query.to(value.dtype), image_rotary_emb)
        key = _rotate(key.to(value.dtype), image_rotary_emb)
        weights = (query * attn.head_dim**-0.5).transpose(1, 2) @ key.permute(0, 2, 3, 1)
        mixed = (weights.softmax(-1).to(value.dtype) @ value.transpose(1, 2)).transpose(1, 2).flatten(2)
        if encoder_hidden_states is None:
            return cast("Tensor", mixed)
        text, image = mixed.split([encoder_hidden_states.shape[1], hidden_states.shape[1]], 1)
        return attn.to_out[1](attn.to_out[0](image)), attn.to_add_out(text)


def _rotate(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary positions on neighbouring pairs of channels; x is batch x tokens x heads x channels."""
    cos, sin = (part.to(x.dtype)[None, :, None] for part in rotary)
    real, imaginary = x[..., 0::2], x[..., 1::2]
    return x * cos + torch.stack([-imaginary, real], -1).flatten(-2) * sin
