"""What a person sees of a run while it goes on: a progress bar, lines in the log, samples in TensorBoard."""

import logging
import time
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from transformer_lab.data.steps import Pass

log = logging.getLogger(__name__)
MOST_SHOWN = 40  # lines of a batch


class ProgressBar(Callback):
    """Steps done, loss, tokens per second and time left, in a terminal; elsewhere the log's lines must do."""

    def __init__(self, *, console: Console) -> None:
        columns = (TextColumn("[bold]{task.description}"), BarColumn(), MofNCompleteColumn(),
                   TextColumn("{task.fields[facts]}"), TimeRemainingColumn())  # fmt: skip
        self.bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self.task: TaskID | None = None

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.bar.start()
        total = pl_module.budget.total_steps
        self.task = self.bar.add_task("training", total=total, completed=pl_module.progress.step, facts="")

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        assert self.task is not None
        point, facts = pl_module.point, ""
        if point:
            pace = f"{point['train/tokens_per_second']:,.0f} tokens/s · MFU {point['train/mfu']:.0%}"
            facts = f"loss {point['train/loss']:.3f} · {pace}"
        self.bar.update(self.task, completed=pl_module.progress.step, facts=facts)

    def on_validation_start(self, trainer: Trainer, pl_module: Any) -> None:
        if self.task is not None:
            self.bar.update(self.task, description="validating")

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        if self.task is not None:
            self.bar.update(self.task, description="training")

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        self.bar.stop()

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        self.bar.stop()


class ValidationLines(Callback):
    """One line in the log after each validation."""

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.started, self.began_at = time.monotonic(), pl_module.progress.step

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        step, total = pl_module.progress.step, pl_module.budget.total_steps
        parts = [f"step {step}/{total}" if total else f"step {step}"]
        if pl_module.point:
            parts.append(f"train loss {pl_module.point['train/loss']:.4f}")
        parts += [f"val {name.replace('_', ' ')} {value:.4g}" for name, value in pl_module.validated.items()]
        if total and step > self.began_at:
            left = (time.monotonic() - self.started) / (step - self.began_at) * (total - step)
            parts.append(f"{left:.0f} s left")
        log.info(" · ".join(parts))


class Samples(Callback):
    """In TensorBoard: one batch at the start, as the model sees it; after each validation predictions, and pictures."""

    def __init__(self, *, batches: Pass) -> None:
        self.batches = batches

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        first = pl_module.progress.step == 0 and trainer.is_global_zero
        if isinstance(pl_module.logger, TensorBoardLogger) and first:
            shown = "\n".join(f"    {line}" for line in pl_module.task.show(self.batches[0]).splitlines()[:MOST_SHOWN])
            pl_module.logger.experiment.add_text("batch", shown, global_step=0)

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        if isinstance(pl_module.logger, TensorBoardLogger) and trainer.is_global_zero:
            board, step = pl_module.logger.experiment, pl_module.progress.step
            board.add_text("samples", pl_module.task.samples(self.batches), global_step=step)
            for name, figure in pl_module.task.pictures(pl_module.sums).items():
                board.add_figure(name, figure, global_step=step)
