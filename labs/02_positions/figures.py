"""The pictures of the reading, each drawn from numbers that are computed here."""

from typing import Any

import torch

from transformer_lab.figures import new_figure
from transformer_lab.models.layers.positions.alibi import Alibi
from transformer_lab.models.layers.positions.relative import bucket
from transformer_lab.models.layers.positions.rotary import Rotary
from transformer_lab.models.layers.positions.sinusoidal import Sinusoidal


def waves() -> Any:
    """The table of sinusoidal positions, and the dot products of its rows."""
    table = Sinusoidal(dim=32, num_heads=1, causal=True, scale=1.0).table[:64]
    figure = new_figure(figsize=(9, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.imshow(table.T, cmap="coolwarm", aspect="auto")
    left.set(title="what is added to a word", xlabel="position", ylabel="channel")
    right.imshow(table @ table.T, cmap="viridis")
    right.set(title="how alike two positions are", xlabel="position", ylabel="position")
    return figure


def turns() -> Any:
    """Two pairs of a query, a fast and a slow one, turned by 12 positions; and scores over the distance."""
    scheme = Rotary(dim=16, num_heads=1, causal=True)
    figure = new_figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.subplots(1, 3, width_ratios=[1, 1, 1.5])
    x = torch.zeros(12, 1, 16)
    x[..., ::2] = 1.0
    turned = scheme.rotate(x, torch.arange(12))[:, 0].unflatten(-1, (-1, 2))  # (12, 8, 2)
    for one, pair in zip(axes[:2], (0, 2), strict=True):
        for place, (across, up) in enumerate(turned[:, pair].tolist()):
            one.plot([0, across], [0, up], color=str(0.8 * place / 12), linewidth=1)
            one.text(1.12 * across, 1.12 * up, place, fontsize=7, ha="center", va="center")
        one.set(title=f"pair {pair}", xticks=[], yticks=[], aspect="equal", xlim=(-1.3, 1.3), ylim=(-1.3, 1.3))
    generator = torch.Generator().manual_seed(4)
    q, k = torch.randn(2, 1, 1, 16, generator=generator)
    for place, style in ((100, "o"), (500, "k-")):
        keys = scheme.rotate(k.expand(41, 1, 16), place + torch.arange(-40, 1))[:, 0]
        scores = keys @ scheme.rotate(q, torch.tensor([place]))[0, 0] / 4
        axes[2].plot(range(40, -1, -1), scores, style, alpha=0.5, label=f"query at {place}")
    axes[2].set(title="a query and a key at many distances", xlabel="distance", ylabel="score")
    axes[2].legend(loc="lower left", fontsize=8)
    return figure


def biases() -> Any:
    """What is added to scores by distance: ALiBi's slopes, and T5's buckets."""
    figure = new_figure(figsize=(9, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    distances = torch.arange(65)
    bias = Alibi(dim=32, num_heads=4, causal=True).bias(distances, torch.zeros(1).long())[..., 0]  # (H, 65)
    for head, values in enumerate(bias):
        left.plot(distances, values, label=f"head {head}")
    left.set(title="ALiBi: a penalty for each head", xlabel="tokens back", ylabel="added to the score", ylim=(-9, 0.5))
    left.legend()
    far = torch.arange(140)
    right.step(far, [bucket(-int(distance), 32, 128, True) for distance in far], where="post")
    right.set(title="T5: 32 buckets, wider the farther", xlabel="tokens back", ylabel="bucket")
    return figure


FIGURES = {"waves": waves, "turns": turns, "biases": biases}
