"""The one LightningModule: a step of any task, and the passes that evaluate it."""

import logging
import math
import re
import resource
import sys
import time
from collections import Counter
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor

from transformer_lab.data.module import DataModule, StepSampler
from transformer_lab.data.packing import Packing
from transformer_lab.data.steps import Step, Steps
from transformer_lab.models.layers.sublayer import sublayers
from transformer_lab.scores import rank
from transformer_lab.tasks.base import Outcome, Task, Texts
from transformer_lab.training import ranks
from transformer_lab.training.averages import Ema
from transformer_lab.training.evaluation import Evaluation, Tally
from transformer_lab.training.faults import Halted, out_of_memory
from transformer_lab.training.flops import Speed
from transformer_lab.training.progress import Best, Budget, Progress, Window
from transformer_lab.training.schedules import Schedule

log = logging.getLogger(__name__)
MOST_SKIPPED = 10  # steps in a row that teach nothing end the run
MOST_NAMED, SHOWN = 3, 200  # examples named then, and letters of each


def by_layer(task: Task) -> dict[str, Tensor]:
    """The norm of the gradient of each block, and of each other part of the model."""
    norms: dict[str, list[Tensor]] = {}
    for name, parameter in task.named_parameters():
        if parameter.grad is not None:
            part = re.match(r"(?:model\.)?(.*?blocks\.\d+|[^.]+)", name)
            assert part is not None
            norms.setdefault(part[1], []).append(torch.linalg.vector_norm(parameter.grad))
    return {part: torch.linalg.vector_norm(torch.stack(some)) for part, some in norms.items()}


def auxiliary_losses(task: Task) -> dict[str, Tensor]:
    """What sub-layers have left of the pass that has just been made; of one name the sum over the layers."""
    found: dict[str, Tensor] = {}
    for layer in sublayers(task):
        for name in layer.auxiliary:
            found[name] = found[name] + layer.losses.pop(name) if name in found else layer.losses.pop(name)
    return found


def memory(device: torch.device) -> float:
    """Megabytes at the most so far: of tensors on a GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


class Training(LightningModule):
    """Optimizer steps over whole `Step`s: the loss of a step is the sum over its targets divided by their number.

    `validation` is the split of that name, `best_by` the metric by which the best weights are chosen on it. With an
    `average` of the weights, that is validated and saved. Everything random in a step follows from (seed, step, rank),
    so there is no random state to save.
    """

    def __init__(
        self,
        *,
        task: Task,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
        budget: Budget,
        progress: Progress,
        validation: Packing,
        gradient_clip: float | None,
        log_every_steps: int,
        seed: int,
        speed: Speed,
        best_by: str,
        average: Ema | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False  # micro-batches, clipping and the schedule are ours to time
        self.task, self.optimizer, self.schedule = task, optimizer, schedule
        self.budget, self.progress, self.validation = budget, progress, validation
        self.gradient_clip, self.log_every_steps, self.seed = gradient_clip, log_every_steps, seed
        self.speed, self.best_by, self.average = speed, best_by, average
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])  # PyTorch's name for what schedules begin at
        self.auxiliary = sorted({name for layer in sublayers(task) for name in layer.auxiliary})
        self.validated: dict[str, float] = {}  # what the latest validation reported
        self.evaluation: Evaluation | None = None  # all that it found
        self.best_texts: tuple[int, Texts] | None = None  # the step of the best one of this process, and what it found
        self.point: dict[str, float] = {}  # the latest point of the training curves
        self._norms: dict[str, Tensor] = {}  # of the gradient of each layer, at the latest point
        self.received: int | None = None  # a signal that this process has got …
        self.leaving: int | None = None  # … and that all ranks know of, to leave together after this step
        self.over = False  # the run has come to one of its limits
        self.updating = False  # in the middle of a step's update: weights and counters do not belong together
        self._window_losses: dict[str, Tensor] = {}  # stay on the device until somebody asks; added in one order only
        self._watch = 0.0

    @property
    def trains_on(self) -> bool:
        """Whether something is left to be done: a step, or the validation behind the last one."""
        progress = self.progress
        return progress.validation_due or not (progress.stopped or self.budget.out_of_steps(progress))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.optimizer

    def on_train_start(self) -> None:
        if self.average:
            self.average.begin(self.task)
        # Lightning counts those of this process, and callbacks keep what it counts: a resumed run's are all.
        progress, loop = self.progress, self.trainer.fit_loop
        sampler: StepSampler = self.trainer.datamodule.sampler  # type: ignore[attr-defined]
        done = (progress.step - progress.validation_due) // sampler.every
        vars(loop.epoch_progress.current).update(ready=done, started=done, processed=done, completed=done)
        loop.epoch_loop.manual_optimization.optim_step_progress.total.completed = progress.step - progress.skipped

    def weights(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What is saved as the model, and the latest weights where those are others."""
        return self.average.states(self.task) if self.average else (self.task.state_dict(), {})

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return batch if batch is None else batch.to(device, non_blocking=True)

    def on_train_epoch_start(self) -> None:
        self._watch = time.perf_counter()

    def training_step(self, step: Step, batch_idx: int) -> None:
        if self.progress.validation_due:  # a resumed run: the step was done, only its validation is missing
            self.over = self.trainer.should_stop = self.budget.out_of_steps(self.progress)
            return
        num_targets, tokens, last = self._agreed(step)
        num_targets |= dict.fromkeys(self.auxiliary, tokens)  # means over tokens
        losses = self._backward(step, num_targets)
        self.updating = True
        # A step without a single target teaches nothing, and decay alone is no step.
        norm = self._update(step, losses) if any(num_targets.values()) else torch.zeros(())
        progress, window = self.progress, self.progress.window
        if not progress.skipped_in_a_row:
            for name, loss in losses.items():
                if name not in self._window_losses:
                    self._window_losses[name] = loss.new_tensor(window.losses.get(name, 0.0), dtype=torch.float64)
                self._window_losses[name] += loss
            window.num_targets = {name: window.num_targets.get(name, 0) + count for name, count in num_targets.items()}
        progress.step = step.number + 1
        progress.tokens += tokens
        window.tokens += tokens
        if last or self.budget.out_of_steps(progress):
            self.over = self.trainer.should_stop = True
        loaders: DataModule = self.trainer.datamodule  # type: ignore[attr-defined]
        progress.validation_due = loaders.sampler.ends(progress.step) or self.trainer.should_stop
        self.updating = False
        if progress.step % self.log_every_steps == 0:
            self._log_point(norm, step)
        if progress.skipped_in_a_row >= MOST_SKIPPED:
            raise Halted(self._why_nothing_is_learned(step))

    def _backward(self, step: Step, num_targets: dict[str, float]) -> dict[str, Tensor]:
        """Gradients of the whole step; returns its losses, each summed. Out of memory, it tries smaller parts."""
        steps: Steps = self.trainer.datamodule.steps  # type: ignore[attr-defined]
        while True:
            if step.units_per_batch > steps.units_per_batch:
                step = steps[step.number].to(self.device)
            try:
                losses = self._attempt(step, num_targets)
                break
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
            # Behind the `except`, which holds on to the tensors of the attempt.
            self.optimizer.zero_grad()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            most = min(step.units_per_batch, len(step.units))
            if most <= 1:
                raise Halted(
                    "hardware.micro_batch_tokens: out of memory with no more than one unit of "
                    f"{steps.packing.capacity} tokens; a smaller model or task.context may fit"
                )
            steps.units_per_batch = most // 2
            size = steps.units_per_batch * steps.packing.capacity
            log.warning("Out of memory in step %s: on with hardware.micro_batch_tokens=%s", step.number + 1, size)
        if ranks.world_size() > 1:
            losses = {name: losses.get(name, torch.zeros((), device=self.device)) for name in num_targets}
            ranks.all_reduce([*ranks.gradients(self.task), *losses.values()])
        return losses

    def _attempt(self, step: Step, num_targets: dict[str, float]) -> dict[str, Tensor]:
        # Spread out, so that the seed of one step is not that of another run's next step.
        seed = (self.seed * 1_000_003 + step.number) * 4_099 + ranks.rank()
        torch.default_generator.manual_seed(seed)  # torch.manual_seed asks for every kind of device: half a millisecond
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        losses: dict[str, Tensor] = {}
        for batch in step.micro_batches:
            outcome: Outcome = self.task(batch)
            summed = outcome.losses
            if self.auxiliary:
                own = auxiliary_losses(self.task)
                summed = summed | {name: loss * batch.num_tokens for name, loss in own.items()}
            parts = [loss / num_targets[name] for name, loss in summed.items() if num_targets[name]]
            if parts:
                self.manual_backward(torch.stack(parts).sum())
            for name, loss in summed.items():
                losses[name] = losses.get(name, 0.0) + loss.detach()
        return losses

    def _agreed(self, step: Step) -> tuple[dict[str, float], int, bool]:
        """Targets and tokens of the step on all ranks, and whether it is the last, as time is up on one of them."""
        own = (step.num_targets, step.tokens, self.budget.out_of_time(), self.received)
        num_targets: Counter[str] = Counter()
        for counts, *_ in (every := ranks.all_gather(own)):
            num_targets.update(counts)  # class weights make fractions of targets
        self.leaving = max((number for *_, number in every if number), default=None)
        return dict(num_targets), sum(tokens for _, tokens, *_ in every), any(over for *_, over, _ in every)

    def _update(self, step: Step, losses: dict[str, Tensor]) -> Tensor:
        """One optimizer step; returns the norm of the gradient before clipping.

        Where loss or gradient is not finite, weights and optimizer stay as they are, and the step counts as skipped.
        """
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        factor = self.schedule(step.number)
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        if (step.number + 1) % self.log_every_steps == 0:
            self._norms = by_layer(self.task)
        gradients = [weight.grad for weight in self.task.parameters() if weight.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        # All that the host asks for in a step, at once; and most gradients need no clipping, which is a pass over them.
        names = [*(f"{name} loss" for name in losses), "gradient norm"]
        found = dict(zip(names, torch.stack([*losses.values(), norm]).tolist(), strict=True))
        if all(map(math.isfinite, found.values())):
            if self.gradient_clip is not None and found["gradient norm"] > self.gradient_clip:
                torch.nn.utils.clip_grads_with_norm_(self.task.parameters(), self.gradient_clip, norm)
            optimizer.step()
            if self.average:
                self.average.update(self.task, step.number + 1 - self.progress.skipped)
            self.progress.skipped_in_a_row = 0
        else:
            self.progress.skipped += 1
            self.progress.skipped_in_a_row += 1
            values = ", ".join(f"{name} {value:g}" for name, value in found.items() if not math.isfinite(value))
            log.warning("Step %s is skipped: %s (%s skipped so far)", step.number + 1, values, self.progress.skipped)
        optimizer.zero_grad()
        return norm

    def _why_nothing_is_learned(self, step: Step) -> str:
        """One line that names examples of the step whose own loss is not finite."""
        steps: Steps = self.trainer.datamodule.steps  # type: ignore[attr-defined]
        named = []
        for unit in step.units:
            batch = steps.batch(step.number, unit[None]).to(self.device)
            with torch.no_grad():
                finite = torch.stack([loss.isfinite() for loss in self.task(batch).losses.values()]).all()
            if not finite:
                named.append(" ".join(self.task.show(batch).split())[:SHOWN])
            if len(named) == MOST_NAMED:
                break
        of = f"; of step {step.number + 1}, examples with such a loss are: {' / '.join(named)}" if named else ""
        in_a_row = self.progress.skipped_in_a_row
        return (
            f"loss or gradient was not finite in {in_a_row} steps in a row, the weights are those of step "
            f"{step.number + 1 - in_a_row}: a smaller optimizer.lr may help{of}"
        )

    def _log_point(self, norm: Tensor, step: Step) -> None:
        self.collect()
        window, self.progress.window, self._window_losses = self.progress.window, Window(), {}
        means = window.means()
        parts = {f"train/{name}_loss": mean for name, mean in means.items()} if len(means) > 1 else {}
        self.point = {
            "train/loss": sum(means.values()) if means else float("nan"),  # all were skipped
            **parts,
            "train/gradient_norm": norm.item(),
            "train/learning_rate": self.optimizer.param_groups[0]["lr"],
            "train/tokens_per_second": window.tokens / window.seconds,
            "train/mfu": self.speed.mfu(window.tokens / window.seconds),
            "train/tokens": float(self.progress.tokens),
            "train/skipped_steps": float(self.progress.skipped),
            "train/unused_room": 1 - step.tokens / room if (room := len(step.units) * self.task.capacity) else 0.0,
            "train/memory_megabytes": memory(self.device),
            **{f"gradients/{name}": norm.item() for name, norm in self._norms.items()},
        }
        if self.logger:
            self.logger.log_metrics(self.point, step=self.progress.step)

    def collect(self) -> None:
        """Bring the loss that waits on the device, and the time, into `progress`."""
        window = self.progress.window
        for name, loss in self._window_losses.items():
            window.losses[name] = loss.item()
        now = time.perf_counter()
        window.seconds += now - self._watch
        self.progress.seconds += now - self._watch
        self._watch = now

    def on_validation_start(self) -> None:
        self.collect()
        if self.average:
            self.average.swap(self.task)

    def on_validation_epoch_start(self) -> None:
        self._tally = Tally()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        if batch is not None:  # where another rank has one more
            self._tally.add(batch, self.task.score(batch))

    def on_validation_epoch_end(self) -> None:
        texts = self._tally.texts()
        self.task.fit_to(texts)
        self.evaluation = Evaluation(self.task, self.validation, texts)
        progress, metrics = self.progress, self.evaluation.metrics
        if progress.best is None or rank(metrics, self.best_by) > rank(progress.best.metrics, self.best_by):
            progress.best, self.best_texts = Best(progress.step, metrics), (progress.step, texts)
        self.validated, progress.validation_due = metrics, False
        self.log_dict(self.validation_point, logger=False)  # for callbacks that watch a metric

    @property
    def validation_point(self) -> dict[str, float]:
        """The latest point of the validation curves."""
        return {f"val/{name}": value for name, value in self.validated.items()}

    def on_validation_end(self) -> None:
        if self.average:
            self.average.swap(self.task)
        if self.logger:  # once all callbacks are through: before that, a resumed run validates again
            self.logger.log_metrics(self.validation_point, step=self.progress.step)
        self._watch = time.perf_counter()
