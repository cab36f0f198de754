"""The items of the loaders: one optimizer step in training, one batch of consecutive units in evaluation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from transformer_lab.data.packing import Packing
from transformer_lab.data.plan import Plan
from transformer_lab.data.store import Corpus

Collate = Callable[[Corpus, np.ndarray, np.ndarray], Any]  # corpus, starts, lengths -> the task's batch


@dataclass(frozen=True)
class Step:
    """One optimizer step: this device's micro-batches, and what the step holds over all devices."""

    number: int
    units: np.ndarray
    micro_batches: list[Any]
    targets: int
    tokens: int

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Step":
        moved = [batch.to(device, non_blocking) for batch in self.micro_batches]
        return Step(self.number, self.units, moved, self.targets, self.tokens)

    def pin_memory(self) -> "Step":
        pinned = [batch.pin_memory() for batch in self.micro_batches]
        return Step(self.number, self.units, pinned, self.targets, self.tokens)


class Steps(Dataset[Step]):
    """Step by number, for one of `world_size` devices; micro-batches hold at most `micro_batch_tokens` tokens."""

    def __init__(self, *, packing: Packing, plan: Plan, collate: Collate, micro_batch_tokens: int,
                 rank: int = 0, world_size: int = 1) -> None:  # fmt: skip
        self.packing, self.plan, self.collate = packing, plan, collate
        self.units_per_batch = max(1, micro_batch_tokens // packing.context)
        self.rank, self.world_size = rank, world_size

    def __getitem__(self, number: int) -> Step:
        units = self.plan.step(number)
        tokens = int(self.packing.sequences(units)[1].sum())
        own = units[self.rank :: self.world_size]
        batches = [
            self.collate(self.packing.corpus, *self.packing.sequences(own[begin : begin + self.units_per_batch]))
            for begin in range(0, len(own), self.units_per_batch)
        ]
        # Every token of a packed sequence is an input and has a target, so their counts are one number.
        return Step(number, units, batches, targets=tokens, tokens=tokens)


class Pass(Dataset[Any]):
    """Every unit once, in order, in batches of at most `micro_batch_tokens` tokens."""

    def __init__(self, *, packing: Packing, collate: Collate, micro_batch_tokens: int) -> None:
        self.packing, self.collate = packing, collate
        self.units_per_batch = max(1, micro_batch_tokens // packing.context)

    def __len__(self) -> int:
        return -(-self.packing.num_units // self.units_per_batch)

    def __getitem__(self, index: int) -> Any:
        begin = index * self.units_per_batch
        units = np.arange(begin, min(begin + self.units_per_batch, self.packing.num_units))
        return self.collate(self.packing.corpus, *self.packing.sequences(units))
