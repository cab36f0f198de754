"""The items of the loaders: one optimizer step in training, one batch of consecutive units in evaluation."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from transformer_lab.data.packing import Packing
from transformer_lab.data.plan import BatchPlan
from transformer_lab.data.sealed import let_go
from transformer_lab.data.store import Corpus
from transformer_lab.layout import Layout

LET_GO_EVERY = 8  # steps; what is looked at in between is some ten megabytes


@dataclass(frozen=True, eq=False, kw_only=True)
class Batch:
    """What a task's collate makes: tensors and layouts, and on the host what they hold."""

    num_tokens: int  # that the model reads
    num_targets: dict[str, float]  # how many targets each loss is summed over; known here, so that no device is asked
    examples: np.ndarray | None = None  # (P,) in an evaluation: which example each row of its score is of

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        return self._each(lambda x: x.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        return self._each(lambda x: x.pin_memory())

    def _each(self, move: Callable[[Any], Any]) -> Self:
        values = {x.name: getattr(self, x.name) for x in fields(self)}
        return replace(self, **{k: move(v) for k, v in values.items() if isinstance(v, Tensor | Layout)})


class Collator(ABC):
    """Makes a batch of pieces of a corpus; a plain object, safe to send to loader workers."""

    @abstractmethod
    def __call__(self, corpus: Corpus, pieces: np.ndarray, key: int) -> Batch:
        """What is random in it follows from the key alone."""

    def examples(self, corpus: Corpus, pieces: np.ndarray) -> np.ndarray:
        """Which example of the corpus each row of the score of these pieces is of; here each piece is a row."""
        return pieces["example"]


@dataclass(frozen=True)
class Step:
    """One optimizer step: this device's micro-batches, and what they hold together."""

    number: int
    units: np.ndarray  # of this device
    units_per_batch: int  # most of them in a micro-batch
    micro_batches: list[Batch]

    @property
    def tokens(self) -> int:
        return sum(batch.num_tokens for batch in self.micro_batches)

    @property
    def num_targets(self) -> dict[str, float]:
        counts: Counter[str] = Counter()
        for batch in self.micro_batches:
            counts.update(batch.num_targets)  # class weights make fractions of targets
        return dict(counts)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Step":
        return replace(self, micro_batches=[batch.to(device, non_blocking) for batch in self.micro_batches])

    def pin_memory(self) -> "Step":
        return replace(self, micro_batches=[batch.pin_memory() for batch in self.micro_batches])


class Steps(Dataset[Step]):
    """Step by number, for one of `world_size` devices; micro-batches hold at most `micro_batch_tokens` tokens."""

    def __init__(
        self,
        *,
        packing: Packing,
        plan: BatchPlan,
        collate: Collator,
        micro_batch_tokens: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.packing, self.plan, self.collate = packing, plan, collate
        self.units_per_batch = max(1, micro_batch_tokens // packing.capacity)
        self.rank, self.world_size = rank, world_size

    def __getitem__(self, number: int) -> Step:
        if number % LET_GO_EVERY == 0:
            let_go()
        units = self.plan.step(number)[self.rank :: self.world_size]
        size = self.units_per_batch
        batches = [self.batch(number, units[begin : begin + size]) for begin in range(0, len(units), size)]
        return Step(number, units, size, batches)

    def batch(self, number: int, units: np.ndarray, most: int | None = None) -> Batch:
        """Some of the units of a step, or the first of their sequences: at the `most` so many."""
        key = self.plan.key(number // self.plan.steps_per_epoch)
        return self.collate(self.packing.corpus, self.packing.pieces(units)[:most], key)


class EvaluationSet(Dataset[Batch]):
    """Every unit once, or the first `num_units`, in order, in batches of at most `micro_batch_tokens` tokens.

    The key is a fixed one: what a collator draws, such as the masked tokens, is the same in every pass.
    """

    def __init__(
        self, *, packing: Packing, collate: Collator, micro_batch_tokens: int, num_units: int | None = None
    ) -> None:
        self.packing, self.collate = packing, collate
        self.num_units = packing.num_units if num_units is None else num_units
        self.units_per_batch = max(1, micro_batch_tokens // packing.capacity)

    def __len__(self) -> int:
        return -(-self.num_units // self.units_per_batch)

    def __getitem__(self, index: int) -> Batch:
        if index >= len(self):
            raise IndexError(index)
        begin = index * self.units_per_batch
        units = np.arange(begin, min(begin + self.units_per_batch, self.num_units))
        corpus, pieces = self.packing.corpus, self.packing.pieces(units)
        return replace(self.collate(corpus, pieces, 0), examples=self.collate.examples(corpus, pieces))
