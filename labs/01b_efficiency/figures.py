"""The pictures of the reading, each drawn from numbers that are computed here."""

from typing import Any

import torch

from transformer_lab.figures import new_figure
from transformer_lab.models.layers.kernels.reference import visible


def blocks() -> Any:
    """What a fused kernel keeps of one query while it goes over 40 keys in blocks of 8."""
    scores = 1.5 * torch.randn(40, generator=torch.Generator().manual_seed(3)) + torch.linspace(0, 2, 40)
    figure = new_figure(figsize=(9, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.bar(range(40), scores, color=["#8ab6d6" if (i // 8) % 2 else "#2f6f9f" for i in range(40)])
    largest, total, sums, most = [], 0.0, [], float("-inf")
    for block in scores.split(8):
        new = max(most, float(block.max()))
        total = total * float(torch.tensor(most - new).exp()) + float((block - new).exp().sum())
        most = new
        largest.append(most)
        sums.append(total)
    left.step(range(-1, 40, 8), [largest[0], *largest], where="pre", color="k", label="largest so far, m")
    left.set(xlabel="key, in blocks of 8", ylabel="score")
    left.legend()
    exact = [float((scores[: end + 8] - scores[: end + 8].max()).exp().sum()) for end in range(0, 40, 8)]
    right.plot(range(8, 41, 8), exact, "o", markersize=11, alpha=0.35, label="of all scores so far, at once")
    right.plot(range(8, 41, 8), sums, "k.-", label="block by block, made smaller where m grows")
    right.set(xlabel="keys read", ylabel="sum of powers, l", ylim=(0, None))
    right.legend(loc="lower right", fontsize=8)
    return figure


def windows() -> Any:
    """Who sees whom in a text of 24 tokens: causal, with a window of 6, and what two such layers reach."""
    positions = torch.arange(24)
    causal = visible(positions, positions, causal=True, window=None)
    window = visible(positions, positions, causal=True, window=6)
    reach = (window.float() @ window.float()) > 0
    figure = new_figure(figsize=(9, 3.4), layout="constrained")
    titles = ["causal", "window of 6", "two layers with a window of 6 reach"]
    for axes, title, seen in zip(figure.subplots(1, 3), titles, [causal, window, reach], strict=True):
        axes.imshow(seen, cmap="Blues", vmin=0, vmax=1.4)
        axes.set_title(f"{title}: {int(seen.sum())} pairs", fontsize=10)
        axes.set(xticks=[], yticks=[])
    figure.axes[0].set_ylabel("a token that looks")
    figure.axes[0].set_xlabel("one that is looked at")
    return figure


def caches() -> Any:
    """Memory of a key/value cache over the length of a text, for 32 layers and heads of width 128, in bf16."""
    lengths = torch.arange(0, 131_073, 4096)
    figure = new_figure(figsize=(6.5, 3.2), layout="constrained")
    axes = figure.subplots()
    for groups, style in ((32, "-"), (8, "--"), (1, ":")):
        axes.plot(lengths / 1000, 2 * 32 * groups * 128 * 2 * lengths / 1e9, style, label=f"{groups} key/value heads")
    axes.axhline(80, color="grey", linewidth=0.8)
    axes.text(2, 82, "memory of a large GPU: 80 GB", fontsize=8, color="grey")
    axes.set(xlabel="thousand tokens of one text", ylabel="GB", ylim=(0, 95))
    axes.legend(loc="center left")
    return figure


FIGURES = {"blocks": blocks, "windows": windows, "caches": caches}
