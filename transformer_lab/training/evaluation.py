"""A pass over a split: outcomes added up, then turned into the metrics of the task."""

from collections import Counter

import torch
from torch import Tensor

from transformer_lab.data.steps import Batch, Pass
from transformer_lab.tasks.base import Outcome, Task
from transformer_lab.training import ranks
from transformer_lab.training.hardware import Hardware


class Totals:
    """Outcomes added up in double precision, where they are: how a split is cut into batches does not show."""

    def __init__(self) -> None:
        self.losses: dict[str, Tensor | float] = {}
        self.targets: Counter[str] = Counter()
        self.sums: dict[str, Tensor] = {}

    def add(self, batch: Batch, outcome: Outcome) -> None:
        self.targets.update(batch.targets)  # type: ignore[arg-type]  # class weights make fractions of targets
        for name, loss in outcome.losses.items():
            self.losses[name] = self.losses.get(name, 0.0) + loss.double()
        for name, value in outcome.sums.items():
            self.sums[name] = self.sums[name] + value.double() if name in self.sums else value.double()

    def _add_up(self) -> "Totals":
        """Over all ranks, by rank; on the CPU."""
        losses = {name: float(loss) for name, loss in self.losses.items()}
        own = losses, self.targets, {name: value.cpu() for name, value in self.sums.items()}
        total = Totals()
        for each, targets, sums in ranks.gathered(own):
            total.targets.update(targets)
            for name, loss in each.items():
                total.losses[name] = total.losses.get(name, 0.0) + loss
            for name, value in sums.items():
                total.sums[name] = total.sums[name] + value if name in total.sums else value
        return total

    def mean(self) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Each loss per target, and the sums, on the CPU; of all ranks together."""
        total = self._add_up()
        losses = {name: float(loss) / total.targets[name] for name, loss in total.losses.items() if total.targets[name]}
        return losses, total.sums


@torch.inference_mode()
def evaluate(task: Task, batches: Pass, machine: Hardware) -> dict[str, float]:
    """The metrics of a task with its present weights."""
    task.to(machine.device).eval()
    totals = Totals()
    with torch.autocast(machine.device.type, machine.dtype, enabled=machine.bf16):
        for index in ranks.share(len(batches)):
            batch = batches[index].to(machine.device)
            totals.add(batch, task.score(batch))
    return task.metrics(*totals.mean(), batches.packing.corpus)
