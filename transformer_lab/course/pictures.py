"""Pictures of labs: curves of losses, what is measured over something, a matrix, and what a head looks at."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from transformer_lab.figures import new_figure
from transformer_lab.training.pictures import AttentionMap, attention_picture

SMOOTH = 10  # steps of a moving mean


def curves(**losses: Sequence[float]) -> Any:
    """A figure of losses over steps, each a moving mean: they are told apart where they lie on each other."""
    figure = new_figure(figsize=(6, 3), layout="constrained")
    axes = figure.subplots()
    for number, (name, values) in enumerate(losses.items()):
        window = min(SMOOTH, len(values))
        means = [sum(values[i - window : i]) / window for i in range(window, len(values) + 1)]
        style = {"linewidth": 4, "alpha": 0.4} if number == 0 else {"linewidth": 1.5}
        axes.plot(range(window, len(values) + 1), means, label=name, **style)
    axes.set(xlabel="step", ylabel=f"loss, mean of {window} steps")
    axes.legend()
    return figure


def lines(x: Sequence[float], *, xlabel: str, ylabel: str, **values: Sequence[float]) -> Any:
    """A figure of values over x."""
    figure = new_figure(figsize=(6, 3), layout="constrained")
    axes = figure.subplots()
    for name, y in values.items():
        axes.plot(x, y, marker=".", label=name.replace("_", " "))
    axes.set(xlabel=xlabel, ylabel=ylabel, ylim=(0, None))
    axes.legend()
    return figure


def map_of(numbers: Tensor, *, xlabel: str, ylabel: str, title: str = "") -> Any:
    """A figure of a matrix, each number a colour: white is 0, red above and blue below."""
    figure = new_figure(figsize=(6, 3), layout="constrained")
    axes = figure.subplots()
    most = float(numbers.abs().max())
    figure.colorbar(axes.imshow(numbers, cmap="coolwarm", vmin=-most, vmax=most, aspect="auto"))
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
    return figure


def confusion_of(counts: Tensor, names: Sequence[str]) -> Any:
    """A figure of a confusion matrix: counts, (C, C), a row for each true class."""
    figure = new_figure(figsize=(4.5, 4), layout="constrained")
    axes = figure.subplots()
    axes.imshow(counts / counts.sum(1, keepdim=True).clamp(min=1), cmap="Blues", vmin=0, vmax=1)
    for row, line in enumerate(counts.tolist()):
        for column, count in enumerate(line):
            light = count > 0.5 * sum(line)
            axes.text(column, row, count, ha="center", va="center", color="w" if light else "k")
    axes.set_xticks(range(len(names)), names, rotation=30)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="predicted", ylabel="true")
    return figure


def looks(weights: Tensor, tokens: Sequence[str]) -> Any:
    """A figure of what heads look at in a text: (H, T, T), a row for each token that looks."""
    return attention_picture([AttentionMap("yours", weights, tokens, tokens)], None)
