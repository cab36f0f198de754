"""What a person sees of a run while it goes on: a progress bar, lines in the log, samples in TensorBoard."""

import csv
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from transformer_lab.data.steps import EvaluationSet
from transformer_lab.folders import replace
from transformer_lab.scores import CURVES
from transformer_lab.terminal import cell
from transformer_lab.training.evaluation_report import read
from transformer_lab.training.faults import worker_died
from transformer_lab.training.pictures import attention_maps, attention_picture, chosen, position_picture, probe

log = logging.getLogger(__name__)
MOST_SHOWN = 40  # lines of a batch
CURVE_COLUMNS = "step,name,value"
SILENCE = 60.0  # seconds without a line, at the most, where nobody sees a progress bar


class ProgressBar(Callback):
    """Steps done, loss, tokens per second and time left, in a terminal; elsewhere in a line of the log each minute."""

    def __init__(self, *, console: Console) -> None:
        columns = (
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[shown]}"),
            TimeRemainingColumn(),
        )
        self.bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self.task: TaskID | None = None
        self.said = time.monotonic()

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.bar.start()
        total = pl_module.budget.total_steps
        self.task = self.bar.add_task("training", total=total, completed=pl_module.progress.step, shown="")

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        assert self.task is not None
        point, shown = pl_module.point, ""
        if point:
            pace = f"{point['train/tokens_per_second']:,.0f} tokens/s · MFU {point['train/mfu']:.0%}"
            shown = f"loss {point['train/loss']:.3f} · {pace}"
        self.bar.update(self.task, completed=pl_module.progress.step, shown=shown)
        if self.bar.disable and time.monotonic() - self.said >= SILENCE:
            self.said = time.monotonic()
            total = pl_module.budget.total_steps
            steps = f"step {pl_module.progress.step}" + (f"/{total}" if total else "")
            log.info(" · ".join(filter(None, [steps, shown])))

    def on_validation_start(self, trainer: Trainer, pl_module: Any) -> None:
        if self.task is not None:
            self.bar.update(self.task, description="validating")

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        self.said = time.monotonic()  # another line tells of the validation
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


class CurveFile(Callback):
    """The curves of a run as a table of step, name and value, whatever its logger: `curves.csv` in its folder.

    What a run that goes on had written beyond the step that it goes on from is dropped.
    """

    def __init__(self, *, folder: Path) -> None:
        self.file = folder / CURVES

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        kept = [CURVE_COLUMNS, *self._until(pl_module.progress)] if trainer.is_global_zero else []
        if kept:  # beside and renamed, whatever the file was
            replace(self.file, "".join(f"{line}\n" for line in kept))

    def _until(self, progress: Any) -> Iterator[str]:
        if not progress.step or not self.file.is_file():
            return
        for line in self.file.read_text(encoding="utf-8").splitlines()[1:]:
            step, _, name = line.partition(",")
            again = progress.validation_due and name.startswith("val/")
            if step.isdecimal() and int(step) <= progress.step - again:
                yield line

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        if pl_module.point and pl_module.progress.step % pl_module.log_every_steps == 0:
            self._write(trainer, pl_module.progress.step, pl_module.point)

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        self._write(trainer, pl_module.progress.step, pl_module.validation_point)

    def _write(self, trainer: Trainer, step: int, values: dict[str, float]) -> None:
        if trainer.is_global_zero:
            with self.file.open("a", encoding="utf-8", newline="") as file:
                rows = ((step, cell(name), value) for name, value in values.items())
                csv.writer(file, lineterminator="\n").writerows(rows)


class Samples(Callback):
    """In TensorBoard: one batch at the start, as the model sees it; after each validation predictions, and what the
    task draws of it."""

    def __init__(self, *, batches: EvaluationSet) -> None:
        self.batches = batches

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        board = board_of(trainer, pl_module)
        if board and pl_module.progress.step == 0:
            shown = "\n".join(f"    {line}" for line in pl_module.task.show(self.batches[0]).splitlines()[:MOST_SHOWN])
            board.add_text("batch", shown, global_step=0)

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        if board := board_of(trainer, pl_module):
            step = pl_module.progress.step
            found = pl_module.evaluation
            with trainer.precision_plugin.forward_context():  # as the validation before it: Lightning has left that
                samples = pl_module.task.samples(self.batches) or read(found)
            board.add_text("samples", samples, global_step=step)
            with drawn("what the task draws"):
                for name, figure in pl_module.task.pictures(found.texts).items():
                    board.add_figure(name, figure, global_step=step)


class Pictures(Callback):
    """In TensorBoard, after each validation: what some `layers` look at in a text of the validation split, head by
    head, and how large the activations of each block are. How positions are told apart is drawn once, or each time
    where that is learned.

    Layers and heads are counted from 0, or from the last by negative numbers; `heads` None: all. Without `layers`
    nothing is drawn, which takes half a second of a validation; the sizes are there all the same.
    """

    def __init__(self, *, batches: EvaluationSet, layers: list[int], heads: list[int] | None = None) -> None:
        self.batches, self.layers, self.heads = batches, layers, heads
        self.drew_positions = False

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        if not (board := board_of(trainer, pl_module)):
            return
        step = pl_module.progress.step
        with drawn("attention"):
            found, scales = attention_maps(pl_module.task, probe(self.batches).to(pl_module.device))
            for name, scale in scales.items():
                board.add_scalar(f"activations/{name}", scale, global_step=step)
            for kind, some in chosen(found, self.layers).items():
                name = "alignment" if kind.endswith("cross_attention") else kind.replace("blocks.", "")
                board.add_figure(name, attention_picture(some, self.heads), global_step=step)
        task = pl_module.task
        if self.layers and (not self.drew_positions or any(True for _ in task.model.position.parameters())):
            self.drew_positions = True
            with drawn("positions"):
                figure = position_picture(task.model.position, task.model.dim, task.model.head_dim, task.context)
                if figure is not None:
                    board.add_figure("position", figure, global_step=step)


@contextmanager
def drawn(what: str) -> Iterator[None]:
    """Pictures never end a run: one that cannot be drawn is told in a line. (A full disk, or a loader process that died
    meanwhile, is no matter of pictures.)"""
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) or worker_died(error):
            raise
        reason = (str(error).splitlines() or [""])[0]
        log.warning("No picture of %s: %s: %s", what, type(error).__name__, reason)


def board_of(trainer: Trainer, pl_module: Any) -> Any | None:
    """TensorBoard's writer, where that is the logger and this process the one that writes."""
    logger = pl_module.logger
    return logger.experiment if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero else None
