"""Attention with linear biases: far tokens score lower (Press et al., 2022, arXiv:2108.12409)."""

import torch
from torch import Tensor

from transformer_lab.models.layers.positions.base import Position


class Alibi(Position):
    refusal = "ALiBi measures a distance within one text"
    slopes: Tensor

    def __init__(self, *, dim: int, num_heads: int, causal: bool, head_dim: int | None = None) -> None:
        super().__init__(dim=dim, num_heads=num_heads, causal=causal, head_dim=head_dim)
        self.register_buffer("slopes", slopes(num_heads), persistent=False)  # (H,)

    def bias(self, query_positions: Tensor, key_positions: Tensor) -> Tensor:
        distance = (query_positions[:, None] - key_positions[None, :]).abs()
        return -self.slopes[:, None, None] * distance


def slopes(num_heads: int) -> Tensor:
    """2^(-8/H), 2^(-16/H), …; for other than powers of two, every second slope of the next power fills up."""
    power = 1 << (num_heads.bit_length() - 1)
    own = [2.0 ** (-8 * (i + 1) / power) for i in range(power)]
    between = [2.0 ** (-4 * (2 * i + 1) / power) for i in range(num_heads - power)]
    return torch.tensor(own + between)
