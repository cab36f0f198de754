"""A pass over a split: outcomes added up, then turned into the metrics of the task."""

import torch
from torch import Tensor

from transformer_lab.data.steps import Pass
from transformer_lab.tasks.base import Outcome, Task
from transformer_lab.training.hardware import Hardware


class Totals:
    """Outcomes added up in double precision, where they are: how a split is cut into batches does not show."""

    def __init__(self) -> None:
        self.loss: Tensor | float = 0.0
        self.targets = 0
        self.sums: dict[str, Tensor | float] = {}

    def add(self, outcome: Outcome) -> None:
        self.loss = self.loss + outcome.loss.double()
        self.targets += outcome.targets
        for name, value in outcome.sums.items():
            self.sums[name] = self.sums.get(name, 0.0) + value.double()

    def mean(self) -> tuple[float, dict[str, float]]:
        """The loss per target, and the sums."""
        return float(self.loss) / self.targets, {name: float(value) for name, value in self.sums.items()}


@torch.inference_mode()
def evaluate(task: Task, batches: Pass, machine: Hardware) -> dict[str, float]:
    """The metrics of a task with its present weights."""
    task.to(machine.device).eval()
    totals = Totals()
    with torch.autocast(machine.device.type, machine.dtype, enabled=machine.bf16):
        for index in range(len(batches)):
            totals.add(task(batches[index].to(machine.device)))
    return task.metrics(*totals.mean(), batches.packing.corpus)
