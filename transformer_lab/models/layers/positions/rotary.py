"""Queries and keys turn by an angle that grows with their position (RoPE; Su et al., 2021, arXiv:2104.09864)."""

import math
from typing import Any, Required, TypedDict

import torch
from torch import Tensor

from transformer_lab.models.layers.positions.base import Position


def frequencies(width: int, base: float) -> Tensor:
    """How far each pair of channels turns from one position to the next, base^(-2i/width): (width/2,)."""
    return base ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)


def angles(length: int, frequencies: Tensor) -> Tensor:
    """The angle of each position and pair of channels: (length, width/2)."""
    # In double precision until the sines are taken: at position 16 000, a float32 is half a thousandth off.
    return torch.outer(torch.arange(length, dtype=torch.float64), frequencies)


class RotaryOptions(TypedDict, total=False):
    """What `Rotary` takes."""

    dim: Required[int]
    num_heads: Required[int]
    causal: Required[bool]
    head_dim: int | None
    base: float
    max_length: int
    local_base: float | None


class Rotary(Position):
    """Turns each pair of neighbouring channels (2i, 2i+1), as in the paper.

    `local_base` is the base of the layers with a window (ModernBERT; Warner et al., 2024, arXiv:2412.13663); None: the
    same as in all others. A subclass that serves longer texts than its model was trained with has `frequencies` of
    its own and, where it needs one, a `scale` of the turned queries and keys.
    """

    crosses = True
    scale: float = 1.0
    table: Tensor

    def __init__(
        self,
        *,
        dim: int,
        num_heads: int,
        causal: bool,
        head_dim: int | None = None,
        base: float = 10_000.0,
        max_length: int = 16_384,
        local_base: float | None = None,
    ) -> None:
        super().__init__(dim=dim, num_heads=num_heads, causal=causal, head_dim=head_dim)
        width = dim // num_heads if head_dim is None else head_dim
        if width % 2:
            what = f"model.dim / model.num_heads = {dim} / {num_heads}" if head_dim is None else "model.head_dim"
            raise ValueError(
                f"position: rotary turns pairs of channels, but a head of {what} has {width}; an even head width is "
                "needed"
            )
        for name, value in (("base", base), ("local_base", local_base)):
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"position.{name}: {value} is not a positive number; 10000 is usual")
        if max_length < 1:
            raise ValueError(f"position.max_length: {max_length} positions are too few; at least 1")
        self.base, self.max_length, self.local_base = base, max_length, local_base
        self.sizes: dict[str, Any] = {"dim": dim, "num_heads": num_heads, "head_dim": head_dim, "causal": causal}
        self.sizes["max_length"] = max_length
        with torch.device("cpu"):
            rates = self.frequencies(width, base)

        def cosines_and_sines() -> Tensor:
            turns = angles(max_length, rates)
            return torch.stack((turns.cos(), turns.sin()), dim=-1) * self.scale

        self.keep_table((max_length, width // 2, 2), cosines_and_sines)

    def frequencies(self, width: int, base: float) -> Tensor:
        return frequencies(width, base)

    def rotate(self, x: Tensor, positions: Tensor) -> Tensor:
        turn = self.table[positions][:, None]  # (N, 1, K/2, 2)
        pairs = x.float().unflatten(-1, (-1, 2))  # (N, H, K/2, 2)
        if not torch.compiler.is_compiling():  # one pass instead of six, which a compiler makes one with what is around
            turned = torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(turn))
        else:
            (even, odd), (cos, sin) = pairs.unbind(-1), turn.unbind(-1)
            turned = torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=-1)
        return turned.flatten(-2).to(x.dtype)

    def local(self) -> Position:
        if self.local_base is None:
            return self
        # Plain in every subclass too: within a window no distance is longer than in training.
        return Rotary(**self.sizes, base=self.local_base)
