"""What a notebook shows of a run while it goes on: a line and the loss curve, each rewritten in place."""

import sys
import time
from html import escape
from typing import Any

from lightning.pytorch import Callback

from transformer_lab.figures import legible, new_figure

SECONDS = 0.5  # between two changes of the line, at the least


def in_notebook() -> bool:
    """Whether this process is a notebook's kernel, which shows more than text."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and "IPKernelApp" in shell.config


class NotebookProgress(Callback):
    """Step, loss, pace and time left in a line; after each validation, the losses so far as a figure."""

    def __init__(self) -> None:
        self.line: Any = None
        self.figure: Any = None
        self.losses: dict[str, list[tuple[int, float]]] = {"train": [], "validation": []}

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        from IPython.display import HTML, display

        self.began, self.first, self.shown = time.monotonic(), pl_module.progress.step, 0.0
        shown: Any = display
        self.line, self.figure = (shown(HTML(""), display_id=True) for _ in range(2))

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        step = pl_module.progress.step
        if pl_module.point and step % pl_module.log_every_steps == 0:
            self.losses["train"].append((step, pl_module.point["train/loss"]))
        if time.monotonic() - self.shown >= SECONDS:
            self._tell(pl_module)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if self.figure is None:
            return
        self.losses["validation"].append((pl_module.progress.step, pl_module.validated["loss"]))
        self._tell(pl_module)
        figure = new_figure(figsize=(5, 2.6), layout="constrained")
        axis = figure.subplots()
        for name, points in self.losses.items():
            if points:
                axis.plot(*zip(*points, strict=True), label=name, marker="o", markersize=2)
        axis.set(xlabel="step", ylabel="loss")
        axis.legend(fontsize="small")
        self.figure.update(legible(figure))

    def _tell(self, pl_module: Any) -> None:
        from IPython.display import HTML

        step, total = pl_module.progress.step, pl_module.budget.total_steps
        self.shown = time.monotonic()
        parts = [f"step {step:,}" + (f" of {total:,}" if total else "")]
        if pl_module.point:
            parts.append(f"loss {pl_module.point['train/loss']:.3f}")
            parts.append(f"{pl_module.point['train/tokens_per_second']:,.0f} tokens/s")
        if total and step > self.first:
            parts.append(f"{(self.shown - self.began) / (step - self.first) * (total - step):.0f} s left")
        self.line.update(HTML(f"<code>{escape(' · '.join(parts))}</code>"))
