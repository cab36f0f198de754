"""Queries and keys turn by an angle that grows with their place (RoPE; Su et al., 2021, arXiv:2104.09864)."""

import torch
from torch import Tensor

from transformer_lab.models.layers.positions.base import Position


def angles(length: int, width: int, base: float) -> Tensor:
    """The angle of each place and pair of channels, place * base^(-2i/width): (length, width/2)."""
    frequencies = base ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    return torch.outer(torch.arange(length, dtype=torch.float64), frequencies).float()


class Rotary(Position):
    """Turns each pair of neighbouring channels (2i, 2i+1), as in the paper."""

    table: Tensor

    def __init__(self, *, dim: int, num_heads: int, base: float = 10_000.0, max_length: int = 16_384) -> None:
        super().__init__(dim=dim, num_heads=num_heads)
        width = dim // num_heads
        if width % 2:
            raise ValueError(
                f"position: rotary turns pairs of channels, but a head of model.dim / model.num_heads = "
                f"{dim} / {num_heads} has {width}; an even head width is needed"
            )
        if base <= 0:
            raise ValueError(f"position.base: {base} is not a positive number; 10000 is usual")
        self.max_length = max_length
        turns = angles(max_length, width, base)
        self.register_buffer("table", torch.stack((turns.cos(), turns.sin()), dim=-1), persistent=False)

    def rotate(self, x: Tensor, positions: Tensor) -> Tensor:
        turn = self.table[positions][:, None]  # (N, 1, K/2, 2)
        pairs = x.float().unflatten(-1, (-1, 2))  # (N, H, K/2, 2)
        if x.device.type == "cpu":  # a complex product is one pass instead of six, but does not fuse in a compiler
            turned = torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(turn))
        else:
            (even, odd), (cos, sin) = pairs.unbind(-1), turn.unbind(-1)
            turned = torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=-1)
        return turned.flatten(-2).to(x.dtype)
