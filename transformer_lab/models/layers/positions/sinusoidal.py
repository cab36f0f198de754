"""Fixed sines and cosines of falling frequency (Vaswani et al., 2017, arXiv:1706.03762, section 3.5)."""

import torch
from torch import Tensor

from transformer_lab.models.layers.positions.base import Position
from transformer_lab.models.layers.positions.rotary import angles, frequencies


class Sinusoidal(Position):
    """Adds sin to the even and cos to the odd channels, scaled to the embeddings' own size at the start."""

    refusal = "sinusoidal positions are already in the embeddings of both texts"
    table: Tensor

    def __init__(
        self,
        *,
        dim: int,
        num_heads: int,
        causal: bool,
        head_dim: int | None = None,
        max_length: int = 16_384,
        scale: float = 0.02,
    ) -> None:
        super().__init__(dim=dim, num_heads=num_heads, causal=causal, head_dim=head_dim)
        if dim % 2:
            raise ValueError(f"position: sinusoidal needs an even width, model.dim is {dim}; nearest {dim + 1}")
        if max_length < 1:
            raise ValueError(f"position.max_length: {max_length} positions are too few; at least 1")
        self.max_length = max_length

        def sines_and_cosines() -> Tensor:
            turns = angles(max_length, frequencies(dim, base=10_000.0))  # (max_length, D/2)
            return torch.stack((turns.sin(), turns.cos()), dim=-1).flatten(1) * scale

        self.keep_table((max_length, dim), sines_and_cosines)

    def embed(self, x: Tensor, positions: Tensor) -> Tensor:
        return x + self.table[positions].to(x.dtype)
