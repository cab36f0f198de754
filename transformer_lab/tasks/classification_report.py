"""What classification is judged by: counts of what was said of what, and the scores, table and picture made of them.

**T** texts, **C** classes.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from transformer_lab.figures import legible, new_figure


def confusion(said: Tensor, true: Tensor, size: int) -> Callable[[Tensor], Tensor]:
    """How many texts of each class (row) were taken for which (column), by how often each counts: (T,) -> (C, C)."""
    cells = (true * size + said).long()
    return lambda weights: torch.bincount(cells, weights, minlength=size * size).view(size, size)


def of_each_class(said: Tensor, true: Tensor) -> Callable[[Tensor], Tensor]:
    """Of each class, right and wrong yes, wrong and right no; in the last row texts that are right in all classes,
    and all texts. By how often each counts: (T,) -> (C + 1, 4), of what is said and true (T, C), 1 for yes."""
    right, exact = said * true, (said == true).all(1).double()

    def count(weights: Tensor) -> Tensor:
        yes_right, yes, members, texts = weights @ right, weights @ said, weights @ true, weights.sum()
        counts = torch.stack([yes_right, yes - yes_right, members - yes_right, texts - yes - members + yes_right], 1)
        return torch.cat([counts, torch.stack([weights @ exact, texts, texts * 0, texts * 0])[None]])

    return count


def best_threshold(logits: Tensor, member: Tensor) -> float:
    """From which logit on a class is said so that its F1 is the greatest: in the middle between the last that is and
    the next; 0, a probability of one half, where no text is of the class: (T,), (T,)."""
    if not member.any():
        return 0.0
    ordered, order = logits.sort(descending=True)
    said = torch.arange(1, len(logits) + 1, dtype=torch.float64)
    f1 = 2 * member[order].double().cumsum(0) / (said + member.sum())
    f1[:-1][ordered[:-1] == ordered[1:]] = 0  # between equal ones there is no threshold
    last = int(f1.argmax())
    return float(ordered[last] + ordered[min(last + 1, len(ordered) - 1)]) / 2 if last + 1 < len(ordered) else -math.inf


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


def table(
    counts: Tensor, labels: Sequence[str], several: bool, thresholds: Sequence[float] | None = None
) -> list[dict[str, Any]]:
    """Precision, recall and F1 of each class; of those that were chosen, the probability from which on it is said."""
    rows = []
    for number, (label, right, said, true) in enumerate(_of_classes(counts, labels, several)):
        shares = right / max(said, 1), right / max(true, 1), 2 * right / max(said + true, 1)
        row = {"class": label, "texts": int(true), **dict(zip(("precision", "recall", "F1"), shares, strict=True))}
        rows.append({**row, "threshold": thresholds[number]} if thresholds else row)
    return rows


def _of_classes(counts: Tensor, labels: Sequence[str], several: bool) -> Iterator[tuple[str, float, float, float]]:
    """Of each class its name, and how many texts are rightly said to be of it, said to be, and are."""
    if several:
        right, said, true = counts[:-1, 0], counts[:-1, 0] + counts[:-1, 1], counts[:-1, 0] + counts[:-1, 2]
    else:
        right, said, true = counts.diag(), counts.sum(0), counts.sum(1)
    yield from zip(labels, right.tolist(), said.tolist(), true.tolist(), strict=True)


def confusion_table(counts: Tensor, labels: Sequence[str]) -> list[dict[str, Any]]:
    """How many texts of a class (row) were taken for which (column)."""
    return [
        {"is ↓ taken for →": label, **dict(zip(labels, map(int, row), strict=True))}
        for label, row in zip(labels, counts.tolist(), strict=True)
    ]


def classes_picture(counts: Tensor, labels: Sequence[str]) -> Any:
    """A matplotlib figure: of each class precision, recall and F1, the class with the most texts on top."""
    rows = sorted(table(counts, labels, several=True), key=lambda row: row["texts"])
    figure = new_figure(figsize=(6, max(2.0, 0.3 * len(rows) + 1)), layout="constrained")
    axes = figure.add_subplot()
    for name, mark in (("precision", ">"), ("recall", "<"), ("F1", "o")):
        axes.plot([row[name] for row in rows], range(len(rows)), mark, label=name)
    axes.set_yticks(range(len(rows)), [f"{row['class']} ({row['texts']})" for row in rows])
    axes.set_xlim(-0.02, 1.02)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return legible(figure)


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
