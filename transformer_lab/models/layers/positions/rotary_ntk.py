"""NTK-aware scaling: a larger base slows slow pairs down and leaves fast ones (bloc97, 2023; see arXiv:2309.00071)."""

import math
from typing import Unpack

from torch import Tensor

from transformer_lab.models.layers.positions.rotary import Rotary, RotaryOptions


class RotaryNTK(Rotary):
    """`factor`: how many times longer than in training a text may be; the slowest pair turns that much slower."""

    def __init__(self, *, factor: float, **rotary: Unpack[RotaryOptions]) -> None:
        if not 1 <= factor < math.inf:
            raise ValueError(f"position.factor: {factor} makes no text longer; more than 1 does, and 1 changes nothing")
        self.factor = factor  # before the rest, which makes the table of it
        super().__init__(**rotary)

    def frequencies(self, width: int, base: float) -> Tensor:
        if width < 4:
            raise ValueError(
                f"position: rotary_ntk changes all pairs of channels but the first, and a head of {width} "
                f"channels has no other; at least 4"
            )
        return super().frequencies(width, base * self.factor ** (width / (width - 2)))
