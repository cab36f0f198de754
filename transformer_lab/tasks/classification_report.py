"""What classification is judged by: counts of what was said of what, and the scores, table and picture made of them.

**B** texts, **C** classes.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from transformer_lab.figures import legible, new_figure
from transformer_lab.terminal import without_markup


def confusion(logits: Tensor, classes: Tensor) -> Tensor:
    """How many texts of each class (row) were taken for which (column): (B, C), (B,) -> (C, C)."""
    size = logits.shape[1]
    return torch.bincount(classes * size + logits.argmax(1), minlength=size * size).view(size, size)


def of_each_class(logits: Tensor, classes: Tensor) -> Tensor:
    """Of each class, right and wrong yes, wrong and right no; in the last row texts that are right in all classes,
    and all texts: (B, C), (B, C) -> (C + 1, 4)."""
    said, true = logits > 0, classes > 0.5
    counts = torch.stack(
        [(said & true).sum(0), (said & ~true).sum(0), (~said & true).sum(0), (~said & ~true).sum(0)], 1
    )
    right = (said == true).all(1).sum()
    last = torch.stack([right, right.new_full((), len(said)), right * 0, right * 0])
    return torch.cat([counts, last[None]])


def single_label(counts: Tensor) -> dict[str, float]:
    """Accuracy, macro F1 and Matthews' correlation (Gorodkin, 2004) of a confusion matrix (C, C)."""
    right, true, said, total = counts.diag(), counts.sum(1), counts.sum(0), counts.sum()
    covariance = right.sum() * total - (true * said).sum()
    spread = ((total**2 - (said**2).sum()) * (total**2 - (true**2).sum())).sqrt()
    return {
        "accuracy": float(right.sum() / total),
        "macro_f1": _macro(right, said, true),
        "matthews": float(covariance / spread) if spread > 0 else 0.0,
    }


def multi_label(counts: Tensor) -> dict[str, float]:
    """Share of texts with all classes right, share of right decisions, and F1 over classes and over decisions."""
    texts, (right, wrong, missed, _) = counts[-1], counts[:-1].T
    decisions = counts[:-1].sum()
    yes = (2 * right + wrong + missed).sum()
    return {
        "exact_match": float(texts[0] / texts[1]),
        "accuracy": float((counts[:-1, 0] + counts[:-1, 3]).sum() / decisions),
        "macro_f1": _macro(right, right + wrong, right + missed),
        "micro_f1": float(2 * right.sum() / yes) if yes > 0 else 0.0,
    }


def _macro(right: Tensor, said: Tensor, true: Tensor) -> float:
    """The mean F1 of the classes that were said or true at all."""
    there = said + true > 0
    return float((2 * right[there] / (said + true)[there]).mean())


def table(counts: Tensor, labels: Sequence[str], several: bool) -> str:
    """Precision, recall and F1 of each class as Markdown."""
    if several:
        right, said, true = counts[:-1, 0], counts[:-1, 0] + counts[:-1, 1], counts[:-1, 0] + counts[:-1, 2]
    else:
        right, said, true = counts.diag(), counts.sum(0), counts.sum(1)
    lines = ["| class | texts | precision | recall | F1 |", "| --- | --- | --- | --- | --- |"]
    for label, r, s, t in zip(labels, right.tolist(), said.tolist(), true.tolist(), strict=True):
        shares = [f"{x:.3f}" for x in (r / max(s, 1), r / max(t, 1), 2 * r / max(s + t, 1))]
        lines.append(f"| {without_markup(label)} | {t:.0f} | {' | '.join(shares)} |")
    return "\n".join(lines)


def confusion_picture(counts: Tensor, labels: Sequence[str]) -> Any:
    """A matplotlib figure: rows are true classes, columns what they were taken for, colours shares of a row."""
    size = max(3.0, 0.5 * len(labels) + 1.5)
    figure = new_figure(figsize=(size, size), layout="constrained")
    axes = figure.add_subplot()
    shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
    axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
    ticks = range(len(labels))
    axes.set_xticks(ticks, labels, rotation=90)
    axes.set_yticks(ticks, labels)
    axes.set_xlabel("taken for")
    axes.set_ylabel("is")
    if len(labels) <= 30:
        for row in ticks:
            for column in ticks:
                colour = "white" if shares[row, column] > 0.5 else "black"
                axes.text(
                    column, row, str(int(counts[row, column])), ha="center", va="center", color=colour, fontsize=8
                )
    return legible(figure)
