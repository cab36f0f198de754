"""The one LightningModule: a step of any task, and the passes that evaluate it."""

import time
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor

from transformer_lab.data.steps import Step
from transformer_lab.data.store import Corpus
from transformer_lab.tasks.base import Outcome, Task
from transformer_lab.training.evaluation import Totals
from transformer_lab.training.progress import Best, Budget, Progress, Window
from transformer_lab.training.schedules import Schedule


class Training(LightningModule):
    """Optimizer steps over whole `Step`s: the loss of a step is the sum over its targets divided by their number.

    `corpus` is the validation split. Everything random in a step follows from (seed, step, rank), so there is no
    random state to save.
    """

    def __init__(self, *, task: Task, optimizer: torch.optim.Optimizer, schedule: Schedule, budget: Budget,
                 progress: Progress, corpus: Corpus, gradient_clip: float | None, log_every_steps: int,
                 seed: int) -> None:  # fmt: skip
        super().__init__()
        self.automatic_optimization = False  # micro-batches, clipping and the schedule are ours to time
        self.task, self.optimizer, self.schedule = task, optimizer, schedule
        self.budget, self.progress, self.corpus = budget, progress, corpus
        self.gradient_clip, self.log_every_steps, self.seed = gradient_clip, log_every_steps, seed
        self.validated: dict[str, float] = {}  # what the latest validation reported
        self.sums: dict[str, Tensor] = {}  # what it counted
        self.point: dict[str, float] = {}  # the latest point of the training curves
        self._window_losses: dict[str, Tensor] = {}  # stay on the device until somebody asks
        self._watch = 0.0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.optimizer

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return batch.to(device, non_blocking=True)

    def on_train_epoch_start(self) -> None:
        self._watch = time.perf_counter()

    def training_step(self, step: Step, batch_idx: int) -> None:
        # Spread out, so that the seed of one step is not that of another run's next step.
        torch.manual_seed((self.seed * 1_000_003 + step.number) * 4_099 + self.global_rank)
        targets, tokens = self._over_devices(step.targets, step.tokens)
        for batch in step.micro_batches:
            outcome: Outcome = self.task(batch)
            # DDP averages gradients over the devices; what is wanted is their sum.
            parts = [loss * (self.trainer.world_size / targets[name])
                     for name, loss in outcome.losses.items() if targets[name]]  # fmt: skip
            if parts:
                self.manual_backward(torch.stack(parts).sum())
            for name, loss in outcome.losses.items():
                before = self._window_losses.get(name)
                self._window_losses[name] = loss.detach() if before is None else before + loss.detach()
        # A step without a single target teaches nothing, and decay alone is no step.
        norm = self._update(step.number) if any(targets.values()) else torch.zeros(())
        self.progress.step = step.number + 1
        self.progress.tokens += tokens
        window = self.progress.window
        window.targets = {name: window.targets.get(name, 0) + count for name, count in targets.items()}
        window.tokens += tokens
        if self.progress.step % self.log_every_steps == 0:
            self._log_point(norm)
        if self.budget.spent(self.progress):
            self.trainer.should_stop = True

    def _over_devices(self, targets: dict[str, float], tokens: int) -> tuple[dict[str, float], int]:
        """What the step holds over all devices, from what it holds on this one."""
        if self.trainer.world_size == 1:
            return targets, tokens
        counts = torch.tensor([*targets.values(), tokens], dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(counts)
        *each, all_tokens = counts.tolist()
        return dict(zip(targets, each, strict=True)), round(all_tokens)

    def _update(self, number: int) -> Tensor:
        """One optimizer step; returns the norm of the gradient before clipping."""
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        factor = self.schedule(number)
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor
        largest = float("inf") if self.gradient_clip is None else self.gradient_clip
        norm = torch.nn.utils.clip_grad_norm_(self.task.parameters(), largest)
        optimizer.step()
        optimizer.zero_grad()
        return norm

    def _log_point(self, norm: Tensor) -> None:
        self.collect()
        window, self.progress.window = self.progress.window, Window()
        means = window.means()
        parts = {f"train/{name}_loss": mean for name, mean in means.items()} if len(means) > 1 else {}
        self.point = {
            "train/loss": sum(means.values()),
            **parts,
            "train/gradient_norm": norm.item(),
            "train/learning_rate": self.optimizer.param_groups[0]["lr"],
            "train/tokens_per_second": window.tokens / window.seconds,
            "train/tokens": float(self.progress.tokens),
        }
        if self.logger:
            self.logger.log_metrics(self.point, step=self.progress.step)

    def collect(self) -> None:
        """Bring the loss that waits on the device, and the time, into `progress`."""
        window = self.progress.window
        for name, loss in self._window_losses.items():
            window.losses[name] = window.losses.get(name, 0.0) + loss.item()
        self._window_losses = {}
        now = time.perf_counter()
        window.seconds += now - self._watch
        self.progress.seconds += now - self._watch
        self._watch = now

    def on_validation_start(self) -> None:
        self.collect()

    def on_validation_epoch_start(self) -> None:
        self._totals = Totals()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self._totals.add(batch, self.task.score(batch))

    def on_validation_epoch_end(self) -> None:
        losses, self.sums = self._totals.mean()
        progress, metrics = self.progress, self.task.metrics(losses, self.sums, self.corpus)
        if progress.best is None or self.task.rank(metrics) > self.task.rank(progress.best.metrics):
            progress.best = Best(progress.step, metrics)
        self.validated = metrics
        named = {f"val/{name}": value for name, value in metrics.items()}
        self.log_dict(named, logger=False)  # for callbacks that watch a metric
        if self.logger:
            self.logger.log_metrics(named, step=progress.step)

    def on_validation_end(self) -> None:
        self._watch = time.perf_counter()
