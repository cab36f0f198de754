"""YaRN: slow pairs are interpolated, fast ones kept, and scores sharpened (Peng et al., 2023, arXiv:2309.00071)."""

import math
from typing import Unpack

import torch
from torch import Tensor

from transformer_lab.models.layers.positions.rotary import Rotary, RotaryOptions

# Pairs that turn at least so often within the trained length keep their frequency (the paper's beta), …
FAST = 32
# … pairs that turn at most so often are slowed down by the whole factor (its alpha).
SLOW = 1


class RotaryYaRN(Rotary):
    """`factor`: how many times longer a text may be than `trained_length`, the longest that training has shown."""

    def __init__(self, *, factor: float, trained_length: int, **rotary: Unpack[RotaryOptions]) -> None:
        if not 1 <= factor < math.inf:
            raise ValueError(f"position.factor: {factor} makes no text longer; more than 1 does, and 1 changes nothing")
        if trained_length < 1:
            raise ValueError(f"position.trained_length: {trained_length} positions are too few; at least 1")
        self.factor, self.trained_length = factor, trained_length  # before the rest, which makes the table of them
        self.scale = 0.1 * math.log(factor) + 1  # on queries and on keys: scores grow by its square
        super().__init__(**rotary)

    def frequencies(self, width: int, base: float) -> Tensor:
        if base <= 1:
            raise ValueError(f"position.base: {base} makes no pair slower than the first; YaRN needs more than 1")

        def pair(turns: int) -> float:  # which one turns so often within the trained length
            return width * math.log(self.trained_length / (2 * math.pi * turns)) / (2 * math.log(base))

        # As the authors' code, which all published models follow: between whole pairs, and in even steps from pair to
        # pair, where the paper's formula has even steps in the number of turns.
        first, last = max(math.floor(pair(FAST)), 0), min(math.ceil(pair(SLOW)), width - 1)
        pairs = torch.arange(width // 2, dtype=torch.float64)
        slowed = ((pairs - first) / max(last - first, 0.001)).clamp(0, 1)
        return super().frequencies(width, base) * (1 - slowed * (1 - 1 / self.factor))
