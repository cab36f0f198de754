"""The pictures of the reading, each drawn from numbers that are computed here."""

from random import Random
from typing import Any

import torch

from transformer_lab.figures import new_figure


def batches() -> Any:
    """Tokens of batches of 16 texts, and of batches by tokens, for the same texts."""
    random = Random(5)
    lengths = [min(1 + int(random.lognormvariate(2.7, 0.9)), 128) for _ in range(640)]
    by_texts = [sum(lengths[begin : begin + 16]) for begin in range(0, len(lengths), 16)]
    budget, by_tokens = max(by_texts), [0]
    for length in lengths:
        if by_tokens[-1] + length > budget:
            by_tokens.append(0)
        by_tokens[-1] += length
    figure = new_figure(figsize=(9, 3), layout="constrained")
    for axes, values, title in zip(
        figure.subplots(1, 2, sharey=True),
        (by_texts, by_tokens),
        ("16 texts a batch", f"at most {budget} tokens"),
        strict=True,
    ):
        axes.bar(range(len(values)), values, color="#2f6f9f")
        axes.set(title=f"{title}: {len(values)} batches", xlabel="batch")
    figure.axes[0].set_ylabel("tokens")
    return figure


def losses() -> Any:
    """The loss over the probability that the right class gets."""
    shares = torch.linspace(0.01, 1, 200)
    figure = new_figure(figsize=(6, 3), layout="constrained")
    axes = figure.subplots()
    axes.plot(shares, -shares.log(), label="cross-entropy, -ln p")
    axes.plot(shares, 1 - shares, "--", label="1 - p")
    for classes in (2, 4, 10):
        axes.plot(1 / classes, float(torch.tensor(float(classes)).log()), "k.")
        axes.annotate(
            f"{classes} classes, all alike",
            (1 / classes, float(torch.tensor(float(classes)).log())),
            (8, 3),
            textcoords="offset points",
            fontsize=8,
        )
    axes.set(xlabel="probability p of the right class", ylabel="loss", ylim=(0, 5))
    axes.legend()
    return figure


FIGURES = {"batches": batches, "losses": losses}
