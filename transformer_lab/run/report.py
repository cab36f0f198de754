"""What a run says: its log, the table before the first step, and the summary after the last."""

import logging
import shlex
import sys
import warnings
from collections.abc import Mapping, Sequence
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import Any

from rich.logging import RichHandler
from rich.table import Table

from transformer_lab.data.module import DataModule
from transformer_lab.folders import replace
from transformer_lab.scores import EVALUATIONS, interval_of
from transformer_lab.tasks.base import Task
from transformer_lab.terminal import Plain, around, command, console, hang_up, plain
from transformer_lab.training.flops import Speed
from transformer_lab.training.hardware import Hardware
from transformer_lab.training.progress import Budget

log = logging.getLogger("transformer_lab")
MOST_CLASSES = 20  # whose texts are counted in a preview


class LetsOut(logging.Handler):
    """Lets out what PyTorch raises in whatever goes on when it learns that a loader worker is dead: in a line of the
    log it would be shown with its traceback, and forgotten."""

    def handleError(self, record: logging.LogRecord) -> None:
        if isinstance(sys.exc_info()[1], RuntimeError):
            raise  # logging calls this where it has caught something
        super().handleError(record)


class LogFile(LetsOut, logging.FileHandler):
    """Goes on with a log, in a file that is surely this one; as far as there is room for it."""

    def __init__(self, file: Path) -> None:
        replace(file, file.read_bytes() if file.exists() else b"")
        super().__init__(file, encoding="utf-8", errors="backslashreplace")
        self.setFormatter(Plain("%(asctime)s %(message)s", datefmt="%Y-%m-%d %H:%M:%S"))
        self.full = False

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self.full:
            self.full = True
            log.warning("%s cannot be written: %s; the run goes on", self.baseFilename, error.strerror)


class LogShown(LetsOut, RichHandler):
    pass


class LogPiped(LetsOut, logging.StreamHandler[Any]):
    unread = False  # nobody reads on

    def handleError(self, record: logging.LogRecord) -> None:
        if isinstance(sys.exc_info()[1], BrokenPipeError):
            self.unread = True
            hang_up()
        else:
            super().handleError(record)


class RunLog:
    """The log of one run: shown as it is written, and kept in `log.txt` as soon as there is a folder for it.

    Of several ranks, only the first has something to say (and the first of each machine, what it waits for).
    """

    def __init__(self, *, first: bool) -> None:
        self.console = console(quiet=not first)
        self._waiting = MemoryHandler(capacity=100_000, flushLevel=logging.CRITICAL + 1)
        shown: logging.Handler
        if self.console.is_terminal and first:  # the console of another one shows nothing, also not what it waits for
            shown = LogShown(console=self.console, show_level=False, show_path=False, log_time_format="%H:%M:%S")
            shown.setFormatter(Plain("%(message)s"))
        else:  # a file has no width, and lines that are cut cannot be searched
            self.console.width = 200
            shown = LogPiped(sys.stdout)
            shown.setFormatter(Plain("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
        log.handlers = [shown, self._waiting]
        log.setLevel(logging.INFO if first else logging.CRITICAL)
        log.propagate = False

    def keep_in(self, folder: Path) -> None:
        kept = LogFile(folder / "log.txt")
        self._waiting.setTarget(kept)
        self._waiting.flush()
        log.handlers[1] = kept

    def table(self, title: str, rows: dict[str, str]) -> None:
        """Show rows as a table; in the log, one line each."""
        table = Table(title=title, show_header=False, title_justify="left")
        for name, value in rows.items():
            table.add_row(name, plain(value))
        self._show(table)
        for name, value in rows.items():
            log.handlers[1].handle(log.makeRecord(log.name, logging.INFO, "", 0, f"{name}: {value}", (), None))

    def say(self, text: str) -> None:
        """Text for the terminal alone, as it stands."""
        self._show(plain(text), highlight=False, soft_wrap=True)

    @property
    def unread(self) -> bool:
        """Whether what reads this output has gone, as `| head` does."""
        return getattr(log.handlers[0], "unread", False)

    def _show(self, what: Any, **how: Any) -> None:
        try:
            self.console.print(what, **how)
        except BrokenPipeError:
            hang_up()
            if isinstance(log.handlers[0], LogPiped):
                log.handlers[0].unread = True


def close_log() -> None:
    """From here on nothing is written in the folder of the last run of this process."""
    for handler in log.handlers:
        handler.close()
    log.handlers = []


def run_rows(
    task: Task, loaders: DataModule, budget: Budget, machine: Hardware, kernel: str, speed: Speed
) -> dict[str, str]:
    """What a run is about to do."""
    rows = {
        "parameters": f"{sum(p.numel() for p in task.parameters()):,}",
        "vocabulary": f"{task.model.embedding.num_embeddings:,} tokens",
    }
    rows |= data_rows(task, loaders, {})
    steps = loaders.steps
    per_step = min(steps.plan.units_per_step, steps.plan.num_units) * task.capacity
    batches = -(-steps.plan.units_per_step // (steps.units_per_batch * steps.world_size))
    rows["tokens per step"] = f"up to {per_step:,} in {batches} micro-batch{'es' if batches > 1 else ''}" + (
        " a device" if steps.world_size > 1 else ""
    )
    epochs = budget.total_steps / steps.plan.steps_per_epoch if budget.total_steps else None
    rows["steps"] = (
        f"{budget.total_steps:,} ({epochs:.2f} epochs)" if epochs else f"as many as fit {budget.seconds / 60:g} minutes"
    )
    rows["device"] = (f"{steps.world_size} × " if steps.world_size > 1 else "") + machine.description
    rows["precision"] = "bf16, weights in fp32" if machine.bf16 else "fp32"
    rows["attention kernel"] = kernel
    flops, rate = speed.flops_per_token, speed.matrix_rate
    rows["FLOPs"] = f"{flops / 1e6:,.1f} million a token; {rate / 1e9:,.0f} billion a second at the most"
    return rows


def data_rows(task: Task, loaders: DataModule, learnt: dict[str, Any]) -> dict[str, str]:
    """How much there is, of each class if there are any, and what of the texts gets lost: behind the end of a context,
    or in their tokens."""
    rows: dict[str, str] = {}
    for split, corpus in loaders.corpora.items():
        rows[split] = f"{corpus.num_examples:,} examples, {corpus.num_tokens:,} tokens, {corpus.text_bytes:,} bytes"
    for name, counts in learnt.items():
        if isinstance(counts, dict):
            some = sorted(counts.items(), key=lambda one: -one[1])[:MOST_CLASSES]
            rows[name] = ", ".join(f"{key} {count:,}" for key, count in some)
            rows[name] += f" and {len(counts) - MOST_CLASSES} more" if len(counts) > MOST_CLASSES else ""
    truncated = {split: one.packing.num_truncated for split, one in loaders.evaluation_sets.items()}
    truncated = {"train": loaders.steps.packing.num_truncated, **truncated}
    unknown, kept = (
        {split: getattr(corpus, share) for split, corpus in loaders.corpora.items()}
        for share in ("unknown_share", "kept_share")
    )
    if any(truncated.values()):
        rows[f"longer than task.context {task.context}"] = _by_split(truncated, ",")
    if any(unknown.values()):
        rows["unknown tokens"] = _by_split(unknown, ".2%")
    if min(kept.values()) < 1:
        rows["texts that tokens give back"] = _by_split(kept, ".2%")
    return rows


def _by_split(numbers: Mapping[Any, float], form: str) -> str:
    return ", ".join(f"{number:{form}} ({split})" for split, number in numbers.items())


def words_after(metrics: dict[str, Any], folder: Path, prompt: str, cache_dir: str, extensions: Sequence[str]) -> str:
    """What a run has shown, where it lies, and what to try next."""
    lines = [scores_after(metrics, folder), "next:"]
    lines.append(f"  {command('scripts/predict.py', f'run={folder}', f'prompt={prompt}', *around(extensions))}")
    split = [] if "test" in metrics else ["split=validation"]
    lines.append(f"  {command('scripts/evaluate.py', f'run={folder}', *split, *around(extensions, cache_dir))}")
    if (folder / "tensorboard").is_dir():
        shown = "outputs" if folder.parts[0] == "outputs" else str(folder)
        lines.append(f"  {shlex.join(['tensorboard', '--logdir', shown])}")
    return "\n".join(lines)


def scores_after(metrics: dict[str, Any], folder: Path) -> str:
    """What a run has shown, and where it lies."""
    lines = [
        f"{split}: "
        + ", ".join(
            f"{name.replace('_', ' ')} {value:.4g}{interval_of(metrics, f'{split} {name}')}"
            for name, value in metrics[split].items()
        )
        for split in ("validation", "test")
        if metrics.get(split)
    ]
    lines += [metrics["scored_by"]] if "scored_by" in metrics else []
    lines.append(
        f"{metrics['steps']:,} steps, {metrics['tokens']:,} tokens, {metrics['tokens_per_second']:,.0f} tokens/s"
    )
    lines += [f"run: {folder}", f"tables, pictures and the hardest texts: {folder / EVALUATIONS}"]
    return "\n".join(lines)


def quiet_lightning() -> None:
    """Lightning's notes on loaders and hardware say nothing that the table does not."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning\..*")
