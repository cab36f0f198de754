"""How a model is trained: by our run, by a plain loop, or by Hugging Face's Trainer; each with the same optimizer."""

import io
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from rich.console import Console
from torch import Tensor, nn

from benchmarks.measure import Contender, Pace
from transformer_lab.composition.build import Section, build, build_task
from transformer_lab.data.store import Corpus, Store
from transformer_lab.data.tokenizers import Tokenizer
from transformer_lab.run.assembly import build_loaders, build_trainer, build_training
from transformer_lab.training.callbacks import ProgressBar
from transformer_lab.training.flops import synchronize
from transformer_lab.training.hardware import Hardware, reuse_memory
from transformer_lab.training.progress import Progress

LR = 1e-3


class Ours:
    """A run of this project as `train.py` makes it, without checkpoints; `name` says with which choices."""

    def __init__(
        self, name: str, config: Section, tokenizer: Tokenizer, corpus: Corpus, facts: Section, differs: str = ""
    ) -> None:
        self.name, self.differs = name, differs
        torch.manual_seed(0)
        self.hardware: Hardware = build(config["hardware"])
        if self.hardware.device.type == "cpu":
            reuse_memory()
        self.task = build_task(config, tokenizer, facts)
        store = Store({"train": corpus, "validation": corpus}, "benchmark", [])
        progress = Progress()
        self.loaders, budget = build_loaders(config, self.task, store, self.hardware, progress)
        self.module = build_training(config, self.task, self.loaders, budget, progress, self.hardware, "loss")
        if self.hardware.compile:  # behind the counting of FLOPs, which PyTorch's compiler leaves alone for good
            self.task.compile()
        self.folder = tempfile.TemporaryDirectory()  # goes with this object

    def run(self, steps: int) -> Pace:
        clock = Clock(steps, self.hardware.device)
        logger = TensorBoardLogger(self.folder.name, name="", version="")
        watchers = [ProgressBar(console=Console(file=io.StringIO())), ModelCheckpoint(save_top_k=0), clock]
        trainer = build_trainer(self.hardware, logger, watchers)  # which saves nothing, as the others
        trainer.limit_val_batches = 0
        self.module.train()
        trainer.fit(self.module, datamodule=self.loaders)
        return clock.pace


class Clock(Callback):
    """Stops after some steps; times all of them but the first, which stands for the start."""

    def __init__(self, steps: int, device: torch.device) -> None:
        self.steps, self.device = steps, device
        self.done, self.tokens = 0, 0
        self.pace: Pace

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.done += 1
        if self.done == 1:
            synchronize(self.device)
            self.started = time.perf_counter()
            return
        self.tokens += batch.tokens
        if self.done == self.steps + 1:
            synchronize(self.device)
            self.pace = Pace(self.tokens, time.perf_counter() - self.started, self.steps)
            trainer.should_stop = True


class OurLoop:
    """The same model and steps as `Ours`, in a loop without Lightning: what the framework adds is the difference."""

    def __init__(self, ours: Ours) -> None:
        self.name, self.differs = f"{ours.name}, in a plain loop", "no Lightning, no logging, no check for NaN"
        self.task, self.steps = ours.task, ours.loaders.steps
        self.machine, self.device = ours.hardware, ours.hardware.device
        self.optimizer = ours.module.optimizer
        assert ours.module.gradient_clip is not None
        self.clip = ours.module.gradient_clip
        self.next = 0

    def run(self, steps: int) -> Pace:
        self.task.to(self.device).train()
        self.optimizer.load_state_dict(self.optimizer.state_dict())  # Lightning leaves both on the CPU
        synchronize(self.device)
        tokens, started = 0, time.perf_counter()
        for _ in range(steps):
            step = self.steps[self.next].to(self.device, non_blocking=True)
            self.next += 1
            num_targets = step.num_targets
            for batch in step.micro_batches:
                with self.machine.autocast():
                    losses = self.task(batch).losses
                    loss = torch.stack([loss / num_targets[name] for name, loss in losses.items()]).sum()
                loss.backward()
            torch.nn.utils.clip_grad_norm_(self.task.parameters(), self.clip)
            self.optimizer.step()
            self.optimizer.zero_grad()
            tokens += step.tokens
        synchronize(self.device)
        return Pace(tokens, time.perf_counter() - started, steps)


def three_ways(
    make: Callable[..., Ours], words: tuple[str, ...], differs: str
) -> Iterator[tuple[str, Callable[[], Contender]]]:
    """`make` with the peers' maths (`words`), that model again without Lightning, and the project's default recipe."""
    name = "transformer_lab"
    same: list[Ours] = []

    def first() -> Contender:
        same.append(make(name, *words))
        return same[0]

    yield name, first
    yield f"{name}, in a plain loop", lambda: OurLoop(same[0])
    yield f"{name}, default recipe", lambda: make(f"{name}, default recipe", differs=differs)


Batches = Callable[[], Iterable[tuple[dict[str, Tensor], int]]]  # the model's arguments, and useful tokens


class Loop:
    """A peer's model, compiled if ours is, in the loop that its users write: with clipping and fused AdamW."""

    def __init__(
        self,
        name: str,
        model: nn.Module,
        loss: Callable[[nn.Module, dict[str, Tensor]], Tensor],
        batches: Batches,
        machine: Hardware,
        differs: str = "",
    ) -> None:
        self.name, self.differs, self.loss, self.batches = name, differs, loss, batches
        self.machine, self.device = machine, machine.device
        self.model = model.to(self.device).train()
        if machine.compile:
            self.model.compile()
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=LR, betas=(0.9, 0.95), weight_decay=0.0, fused=True
        )
        self.source: Iterator[tuple[dict[str, Tensor], int]] = iter(batches())

    def run(self, steps: int) -> Pace:
        tokens = 0
        synchronize(self.device)
        started = time.perf_counter()
        for _ in range(steps):
            batch, useful = next(self.source, None) or self._again()
            batch = {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}
            with self.machine.autocast():
                loss = self.loss(self.model, batch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
            tokens += useful
        synchronize(self.device)
        return Pace(tokens, time.perf_counter() - started, steps)

    def _again(self) -> tuple[dict[str, Tensor], int]:
        self.source = iter(self.batches())
        return next(self.source)


class HFTrainer:
    """A model of Hugging Face's library in its Trainer, with the Trainer's defaults but for what is said here."""

    def __init__(
        self,
        name: str,
        model: nn.Module,
        rows: list[dict[str, Any]],
        collate: Callable[..., dict[str, Tensor]],
        batch_size: int,
        machine: Hardware,
        useful: Callable[[dict[str, Tensor]], int],
        differs: str = "",
        compiled: bool = True,
        **arguments: Any,
    ) -> None:
        from transformers import TrainingArguments, logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        self.name, self.differs, self.model, self.rows, self.batch_size = name, differs, model, rows, batch_size
        self.device, self.useful, self.tokens = machine.device, useful, 0
        self.folder = tempfile.TemporaryDirectory()
        self.collate = collate

        def arguments_for(steps: int) -> TrainingArguments:
            return TrainingArguments(
                self.folder.name,
                max_steps=steps,
                per_device_train_batch_size=batch_size,
                learning_rate=LR,
                adam_beta2=0.95,
                use_cpu=self.device.type == "cpu",
                bf16=machine.bf16,
                report_to="none",
                disable_tqdm=True,
                save_strategy="no",
                logging_steps=10,
                lr_scheduler_type="constant",
                dataloader_pin_memory=self.device.type == "cuda",
                torch_compile=machine.compile and compiled,
                **arguments,
            )

        self.arguments_for = arguments_for

    def _collated(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        batch = self.collate(rows)
        self.tokens += self.useful(batch)
        return batch

    def run(self, steps: int) -> Pace:
        from transformers import Trainer, TrainerCallback

        outer = self

        class Clock(TrainerCallback):  # type: ignore[misc]
            done = 0

            def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
                self.done += 1
                if self.done == 1:
                    synchronize(outer.device)
                    # The loader is a batch ahead: as much at the start as at the end.
                    outer.tokens, self.started = 0, time.perf_counter()
                if self.done == steps + 1:
                    synchronize(outer.device)
                    self.pace = Pace(outer.tokens, time.perf_counter() - self.started, steps)
                    control.should_training_stop = True

        clock = Clock()
        # Two more steps than are timed: the loader looks a batch ahead, and shall not come to its end.
        trainer = Trainer(
            self.model,
            self.arguments_for(steps + 3),
            train_dataset=self.rows,
            data_collator=self._collated,
            callbacks=[clock],
        )
        from transformers.trainer_callback import PrinterCallback

        trainer.remove_callback(PrinterCallback)
        trainer.train()
        return clock.pace
