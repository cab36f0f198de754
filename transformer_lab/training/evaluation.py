"""A pass over a split: outcomes added up, then turned into the metrics of the task."""

from collections import Counter

import torch
from torch import Tensor

from transformer_lab.data.steps import Batch, Pass
from transformer_lab.tasks.base import Outcome, Task
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

    def mean(self) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Each loss per target, and the sums, on the CPU."""
        losses = {name: float(loss) / self.targets[name] for name, loss in self.losses.items() if self.targets[name]}
        return losses, {name: value.cpu() for name, value in self.sums.items()}


@torch.inference_mode()
def evaluate(task: Task, batches: Pass, machine: Hardware) -> dict[str, float]:
    """The metrics of a task with its present weights."""
    task.to(machine.device).eval()
    totals = Totals()
    with torch.autocast(machine.device.type, machine.dtype, enabled=machine.bf16):
        for index in range(len(batches)):
            batch = batches[index].to(machine.device)
            totals.add(batch, task.score(batch))
    return task.metrics(*totals.mean(), batches.packing.corpus)
