"""A pass over a split: what is known of each text is added up, and turned into metrics and into how sure those are.

**P** rows of a batch, **T** texts of a split.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from transformer_lab.data.packing import Packing
from transformer_lab.data.steps import Batch, EvaluationSet
from transformer_lab.scores import middle
from transformer_lab.tasks.base import Row, Scored, Task, Texts
from transformer_lab.terminal import console
from transformer_lab.training import ranks
from transformer_lab.training.hardware import Hardware

RESAMPLES = 1000


class Tally:
    """What the batches of a pass add, text by text: how a split is cut into batches does not show."""

    def __init__(self) -> None:
        self._parts: list[Texts] = []

    def add(self, batch: Batch, scored: Scored) -> None:
        assert batch.examples is not None
        rows = {len(values) for values in (*scored.losses.values(), *scored.counts.values())}
        if rows != {len(batch.examples)}:
            there = ", ".join(map(str, sorted(rows)))
            what = f"its score has {there} rows, and collate.examples names the texts of {len(batch.examples)}"
            raise ValueError(f"task._target_: {what}")
        self._parts.append(_added_up(batch.examples, scored.losses, scored.counts))

    def texts(self) -> Texts:
        """All texts of all ranks, on the CPU.

        Raises ValueError for a loss without any target, as where no token of a small split is hidden.
        """
        own = [_joined(self._parts)] if self._parts else []
        texts = _joined([part for some in ranks.all_gather(own) for part in some])
        if nothing := next((name for name, loss in texts.losses.items() if not loss[:, 1].any()), None):
            why = "a text too short to hide a token, or classes of weight 0 only"
            raise ValueError(
                f"data: nothing in this split counts for the loss of {nothing} ({why}): take a larger "
                "split, by data.validation or data.test"
            )
        return texts


def _joined(parts: list[Texts]) -> Texts:
    """… on the CPU; what several have found of one text is added up."""

    def columns(kind: str) -> dict[str, Tensor]:
        names = getattr(parts[0], kind)
        return {name: torch.cat([getattr(part, kind)[name].cpu() for part in parts]) for name in names}

    return _added_up(np.concatenate([part.examples for part in parts]), columns("losses"), columns("counts"))


def _added_up(examples: np.ndarray, losses: dict[str, Tensor], counts: dict[str, Tensor]) -> Texts:
    """Rows (P, …), each of one of the `examples` (P,), where they are."""
    texts, which = np.unique(examples, return_inverse=True)
    rows = torch.from_numpy(which)

    def added(values: Tensor) -> Tensor:
        total = values.new_zeros(len(texts), *values.shape[1:], dtype=torch.float64)
        return total.index_add_(0, rows.to(values.device), values.double())

    return Texts(texts, *({name: added(values) for name, values in kind.items()} for kind in (losses, counts)))


@dataclass(frozen=True)
class Evaluation:
    """What a pass over a split has found."""

    task: Task
    packing: Packing
    texts: Texts

    @cached_property
    def metrics(self) -> dict[str, float]:
        """The scores; and how many texts were truncated, so that the model has not seen all of them."""
        metrics = self._metrics(self.texts.once)
        truncated = self.packing.num_truncated
        return {**metrics, "truncated_texts": truncated} if truncated else metrics

    def _metrics(self, weights: Tensor) -> dict[str, float]:
        """Where each text counts so often: (T,)."""
        totals = {name: weights @ loss for name, loss in self.texts.losses.items()}
        losses = {name: float(loss / targets) for name, (loss, targets) in totals.items()}
        return self.task.metrics(losses, self._sums(weights), self.packing.corpus)

    @cached_property
    def _sums(self) -> Callable[[Tensor], dict[str, Tensor]]:
        return self.task.sums(self.texts)

    @property
    def unit(self) -> str:
        """What is drawn for a resample; where the split is one text, its blocks."""
        if self.packing.corpus.num_examples > 1:
            return "texts"
        return f"blocks of {self.task.context} tokens, by tokenizer {self.task.tokenizer.hash[:12]}"

    @cached_property
    def tables(self) -> dict[str, list[Row]]:
        return self.task.tables(self.texts)

    @cached_property
    def mistakes(self) -> list[Row]:
        return self.task.mistakes(self.texts, self.packing.corpus)

    @cached_property
    def resamples(self) -> dict[str, list[float]]:
        """The bootstrap (Efron, 1979): each score of as many texts, drawn from the split's with replacement.

        Two models that were scored on the same texts have the same draws, so that their scores may be compared draw
        by draw (Koehn, 2004). Empty where there is one text only.
        """
        found: dict[str, list[float]] = {}
        count = len(self.texts)
        draws = np.random.default_rng(0)
        for _ in range(RESAMPLES if count > 1 else 0):
            drawn = np.bincount(draws.integers(count, size=count), minlength=count)
            for name, value in self._metrics(torch.from_numpy(drawn).double()).items():
                found.setdefault(name, []).append(value)
        return {name: values for name, values in found.items() if len(set(values)) > 1}

    @cached_property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """Of each score, between which values the middle 95 % of its resamples lie."""
        return {name: middle(np.array(values)) for name, values in self.resamples.items()}


@torch.inference_mode()
def evaluate(task: Task, batches: EvaluationSet, machine: Hardware) -> Evaluation:
    """A task with its present weights."""
    task.to(machine.device).eval()
    tally = Tally()
    screen = console(stderr=True)
    hidden = not screen.is_terminal or ranks.rank() > 0
    some: Any = track(ranks.shard(len(batches)), "evaluating", console=screen, transient=True, disable=hidden)
    with machine.autocast():
        for index in some:
            batch = batches[index].to(machine.device)
            tally.add(batch, task.score(batch))
    return Evaluation(task, batches.packing, tally.texts())
