"""Llama 3.1's: slow pairs are interpolated, fast ones kept, by how far one turn reaches (Grattafiori et al., 2024,
arXiv:2407.21783; the formula is that of its published code)."""

import math
from typing import Unpack

from torch import Tensor

from transformer_lab.models.layers.positions.rotary import Rotary, RotaryOptions


class RotaryLlama3(Rotary):
    """`factor`: how many times longer a text may be than `trained_length`, the longest that training has shown.

    Pairs that turn less than `slow` times within it are slowed down by the whole factor, those that turn more than
    `fast` times keep their frequency, and between the two lies an even passage.
    """

    def __init__(
        self,
        *,
        factor: float,
        trained_length: int,
        slow: float = 1.0,
        fast: float = 4.0,
        **rotary: Unpack[RotaryOptions],
    ) -> None:
        if not 1 <= factor < math.inf:
            raise ValueError(f"position.factor: {factor} makes no text longer; more than 1 does, and 1 changes nothing")
        if trained_length < 1:
            raise ValueError(f"position.trained_length: {trained_length} positions are too few; at least 1")
        if not 0 < slow < fast < math.inf:
            raise ValueError(f"position.slow: {slow} turns are not fewer than position.fast, {fast}; 1 and 4 are usual")
        self.factor, self.trained_length, self.slow, self.fast = factor, trained_length, slow, fast
        super().__init__(**rotary)

    def frequencies(self, width: int, base: float) -> Tensor:
        rates = super().frequencies(width, base)
        turns = self.trained_length * rates / (2 * math.pi)
        kept = ((turns - self.slow) / (self.fast - self.slow)).clamp(0, 1)
        return rates * (1 - (1 - kept) * (1 - 1 / self.factor))
