"""A pass over a split: outcomes added up, then turned into the metrics of the task."""

from collections import Counter
from typing import Any

import torch
from rich.progress import track
from torch import Tensor

from transformer_lab.data.packing import Packing
from transformer_lab.data.steps import Batch, EvaluationSet
from transformer_lab.tasks.base import Outcome, Task
from transformer_lab.terminal import console
from transformer_lab.training import ranks
from transformer_lab.training.hardware import Hardware


class Totals:
    """Outcomes added up in double precision, where they are: how a split is cut into batches does not show."""

    def __init__(self) -> None:
        self.losses: dict[str, Tensor | float] = {}
        self.num_targets: Counter[str] = Counter()
        self.sums: dict[str, Tensor] = {}

    def add(self, batch: Batch, outcome: Outcome) -> None:
        losses = {name: loss.double() for name, loss in outcome.losses.items()}
        self._count(batch.num_targets, losses, {name: value.double() for name, value in outcome.sums.items()})

    def _count(self, num_targets: dict[str, Any], losses: dict[str, Any], sums: dict[str, Tensor]) -> None:
        self.num_targets.update(num_targets)
        for mine, others in ((self.losses, losses), (self.sums, sums)):
            for name, value in others.items():
                mine[name] = mine[name] + value if name in mine else value

    def _all_reduced(self) -> "Totals":
        """Over all ranks, by rank; on the CPU."""
        losses = {name: float(loss) for name, loss in self.losses.items()}
        sums = {name: value.cpu() for name, value in self.sums.items()}
        total = Totals()
        for counted in ranks.all_gather((self.num_targets, losses, sums)):
            total._count(*counted)
        return total

    def mean(self) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Each loss per target, and the sums, on the CPU; of all ranks together.

        Raises ValueError for a loss without any target, as where no token of a small split is hidden.
        """
        total = self._all_reduced()
        if nothing := next((name for name in total.losses if not total.num_targets[name]), None):
            why = "a text too short to hide a token, or classes of weight 0 only"
            raise ValueError(
                f"data: nothing in this split counts for the loss of {nothing} ({why}): take a larger "
                "split, by data.validation or data.test"
            )
        return {name: float(loss) / total.num_targets[name] for name, loss in total.losses.items()}, total.sums


@torch.inference_mode()
def evaluate(task: Task, batches: EvaluationSet, machine: Hardware) -> dict[str, float]:
    """The metrics of a task with its present weights."""
    task.to(machine.device).eval()
    totals = Totals()
    screen = console(stderr=True)
    hidden = not screen.is_terminal or ranks.rank() > 0
    some = track(ranks.shard(len(batches)), "evaluating", console=screen, transient=True, disable=hidden)
    with machine.autocast():
        for index in some:
            batch = batches[index].to(machine.device)
            totals.add(batch, task.score(batch))
    return reported(task, *totals.mean(), batches.packing)


def reported(task: Task, losses: dict[str, float], sums: dict[str, Tensor], packing: Packing) -> dict[str, float]:
    """The metrics of a pass; and how many texts were truncated, so that the model has not seen all of them."""
    metrics = task.metrics(losses, sums, packing.corpus)
    return {**metrics, "truncated_texts": packing.num_truncated} if packing.num_truncated else metrics
