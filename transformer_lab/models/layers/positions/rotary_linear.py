"""Position interpolation: positions move closer until a longer text fits (Chen et al., 2023, arXiv:2306.15595)."""

import math
from typing import Unpack

from torch import Tensor

from transformer_lab.models.layers.positions.rotary import Rotary, RotaryOptions


class RotaryLinear(Rotary):
    """`factor`: how many times longer than in training a text may be."""

    def __init__(self, *, factor: float, **rotary: Unpack[RotaryOptions]) -> None:
        if not 1 <= factor < math.inf:
            raise ValueError(f"position.factor: {factor} makes no text longer; more than 1 does, and 1 changes nothing")
        self.factor = factor  # before the rest, which makes the table of it
        super().__init__(**rotary)

    def frequencies(self, width: int, base: float) -> Tensor:
        return super().frequencies(width, base) / self.factor
