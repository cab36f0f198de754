"""The pictures of the reading, each drawn from numbers that are computed here."""

from typing import Any

import torch
from torch import Tensor

import transformer_lab as tl
from transformer_lab.figures import new_figure

WORDS = ["the", "cat", "sat", "on", "it", "."]


def seeded(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def steps() -> Any:
    """From queries and keys to what comes out, for a text of six tokens."""
    q, k, v = seeded(3, len(WORDS), 8)
    scores = q @ k.T / 8**0.5
    masked = scores.masked_fill(~torch.ones_like(scores).bool().tril(), float("-inf"))
    weights = masked.softmax(-1)
    figure = new_figure(figsize=(11, 3.4), layout="constrained")
    panels = figure.subplots(1, 4, width_ratios=[6, 6, 6, 8])
    titles = ["1. scores", "2. masked: no future", "3. weights: each row sums to 1", "4. values, mixed by the weights"]
    for axes, title, matrix in zip(panels, titles, [scores, masked, weights, weights @ v], strict=True):
        square = matrix.shape[1] == len(WORDS)
        axes.imshow(matrix, cmap="viridis" if matrix is weights else "coolwarm", vmin=0 if matrix is weights else None)
        axes.set_title(title, fontsize=10)
        axes.set_yticks(range(len(WORDS)), WORDS)
        axes.set_xticks(range(matrix.shape[1]), WORDS if square else [""] * matrix.shape[1], rotation=90)
        if square:
            for (row, column), value in zip(
                torch.cartesian_prod(*[torch.arange(6)] * 2), matrix.flatten(), strict=True
            ):
                if value.isfinite() and (matrix is not weights or value > 0):
                    dark = matrix is weights and value < 0.6
                    axes.text(
                        column,
                        row,
                        f"{value:.1f}".replace("-0.0", "0.0"),
                        ha="center",
                        va="center",
                        fontsize=7,
                        color="w" if dark else "k",
                    )
    panels[0].set_ylabel("a token that looks")
    panels[0].set_xlabel("one that is looked at")
    panels[3].set_xlabel("numbers of a value")
    return figure


def root() -> Any:
    """Weights of 20 tokens by the width of queries and keys, with the division by its root and without."""
    figure = new_figure(figsize=(9, 3), layout="constrained")
    for axes, divided in zip(figure.subplots(1, 2, sharey=True), (False, True), strict=True):
        for width, style in ((4, "-"), (64, "--"), (1024, ":")):
            generator = torch.Generator().manual_seed(2)
            q, k = (torch.randn(rows, width, generator=generator) for rows in (200, 20))
            weights = (q @ k.T * (width**-0.5 if divided else 1)).softmax(-1)
            axes.plot(range(1, 21), weights.sort(-1, descending=True).values.mean(0), style, label=f"K = {width}")
        axes.set(title="divided by the root of K" if divided else "not divided", xlabel="tokens, by their weight")
        axes.set_xticks([1, 5, 10, 15, 20])
    figure.axes[0].set_ylabel("weight, mean of 200 queries")
    figure.axes[1].legend()
    return figure


def packed() -> Any:
    """Which pairs of tokens are computed for texts of 3, 9 and 5 tokens, filled up and packed."""
    lengths = [3, 9, 5]
    longest, real = max(lengths), sum(lengths)
    figure = new_figure(figsize=(9.5, 4.3), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[29, 17])
    shares = [  # of a text: 2 for whom a token sees, 1 for what lies in its future
        tl.Attention(dim=4, num_heads=1, causal=True).attention_weights(torch.zeros(n, 4), tl.Layout.of([n]))[0] > 0
        for n in lengths
    ]
    squares = []
    for share in shares:
        filled = torch.full((longest, longest), 0.5)
        filled[: len(share), : len(share)] = share + 1.0
        squares += [filled, torch.zeros(longest, 1)]
    for axes, matrix in ((left, torch.cat(squares[:-1], dim=1)), (right, torch.block_diag(*(s + 1.0 for s in shares)))):
        axes.imshow(matrix, cmap="Blues", vmin=0, vmax=2.4)
        axes.set_xticks([])
        axes.set_yticks([])
    left.set_title(f"filled up: {3 * longest} tokens, {3 * longest**2} pairs", fontsize=10)
    left.set_xlabel("palest: pairs with tokens that mean nothing")
    right.set_title(f"packed: {real} tokens, {sum(n * n for n in lengths)} pairs", fontsize=10)
    right.set_xlabel("white: not computed; dark: who sees whom")
    return figure


FIGURES = {"steps": steps, "root": root, "packed": packed}
