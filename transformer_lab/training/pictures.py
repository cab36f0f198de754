"""What a model looks at and how it tells positions apart, as pictures; and how large what it computes is, by layer.

**H** heads, **N** tokens of a batch, **D** width, **T** positions.
"""

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from transformer_lab.data.steps import Batch, EvaluationSet
from transformer_lab.data.tokenizers import Tokenizer
from transformer_lab.figures import legible, new_figure
from transformer_lab.layout import Layout
from transformer_lab.models.layers.attention import Attention, kernels_of
from transformer_lab.models.layers.kernels import reference
from transformer_lab.models.layers.positions.base import Position
from transformer_lab.tasks.base import Task

MOST_TOKENS = 32  # of a text in a picture: more cannot be read
MOST_POSITIONS = 128  # in a picture of positions
WIDEST = 11.0  # inches of a picture: a notebook shows wider ones smaller


@dataclass(frozen=True)
class AttentionMap:
    """Of one layer: how much each query looked at each key, (H, Q, K), and what they are called."""

    layer: str
    weights: Tensor
    queries: Sequence[str]
    keys: Sequence[str]


def probe(batches: EvaluationSet) -> Batch:
    """The first piece of a split alone: a text, a pair of them, or a sequence."""
    packing = batches.packing
    pieces = packing.pieces(torch.zeros(1, dtype=torch.int64).numpy())
    return batches.collate(packing.corpus, pieces[:1], 0)


@torch.no_grad()
def attention_maps(task: Task, batch: Batch) -> tuple[list[AttentionMap], dict[str, float]]:
    """The attention of every layer in a batch of one sequence, by the reference kernel; and the root mean square of
    what each block hands on."""
    found: list[AttentionMap] = []
    scales: dict[str, float] = {}
    names = {module: name.removesuffix(".layer") for name, module in task.model.named_modules()}
    known = {id(layout): tokens for layout, tokens in _sides(batch)}
    training = task.training

    def scale(block: nn.Module, inputs: Any, output: Tensor) -> None:
        scales[names[block]] = float(output.float().square().mean().sqrt())

    with _watched(task) as seen:
        hooks = [
            block.register_forward_hook(scale)
            for name, block in task.model.named_modules()
            if isinstance(block, nn.Module) and name.rpartition(".")[0].endswith("blocks")
        ]
        try:
            with torch.compiler.set_stance("force_eager"):  # a compiled model would be compiled anew for this
                task.eval()(batch)
        finally:
            for hook in hooks:
                hook.remove()
            task.train(training)
    for module, weights, queries, keys in seen:
        rows, columns = (_labels(task.tokenizer, known.get(id(side)), side) for side in (queries, keys))
        found.append(AttentionMap(names[module], weights[:, : len(rows), : len(columns)].float().cpu(), rows, columns))
    return found, scales


@contextmanager
def _watched(task: Task) -> Iterator[list[tuple[Attention, Tensor, Layout, Layout]]]:
    """Attention by the reference kernel, with a note of what was looked at."""
    seen: list[tuple[Attention, Tensor, Layout, Layout]] = []

    def watch(module: Attention) -> Any:
        def attend(q: Tensor, k: Tensor, v: Tensor, *, queries: Layout, keys: Layout, **rules: Any) -> Tensor:
            seen.append((module, reference.weights(q, k, queries=queries, keys=keys, **rules), queries, keys))
            return reference.attend(q, k, v, queries=queries, keys=keys, **rules)

        return attend

    with kernels_of(task, watch):
        yield seen


def _sides(batch: Batch) -> Iterator[tuple[Layout, Tensor]]:
    """The texts of a batch: `layout` goes with `tokens`, `source_layout` with `source`."""
    for field in fields(batch):
        value = getattr(batch, field.name)
        tokens = getattr(batch, field.name.removesuffix("_layout").replace("layout", "tokens"), None)
        if isinstance(value, Layout) and isinstance(tokens, Tensor):
            yield value, tokens


def pieces_of(task: Task, batch: Batch) -> Iterator[list[tuple[str, str]]]:
    """Of each sequence of a batch its tokens as they are written, each with its kind: "special", "hidden" where it is
    to be guessed, "second" in the second of two segments, or "text"."""
    types, hidden = getattr(batch, "types", None), getattr(batch, "indices", None)
    special = {task.tokenizer.special(name) for name in task.special_tokens}
    guessed = set(hidden.tolist()) if types is not None and hidden is not None else set()
    for layout, tokens in _sides(batch):
        kinds = ["text"] * len(tokens) if types is None else ["second" if x else "text" for x in types.tolist()]
        ids = tokens.tolist()
        for begin, end in pairwise(layout.offsets.tolist()):
            yield [
                (
                    task.tokenizer.reveal([ids[i]]),
                    "hidden" if i in guessed else "special" if ids[i] in special else kinds[i],
                )
                for i in range(begin, end)
            ]


def _labels(tokenizer: Tokenizer, tokens: Tensor | None, layout: Layout) -> list[str]:
    count = min(MOST_TOKENS, len(layout.positions))
    if tokens is None:  # a text that the task has put together itself
        return [str(position) for position in range(count)]
    return [tokenizer.reveal([token]) for token in tokens[:count].tolist()]


def chosen(found: Sequence[AttentionMap], layers: Sequence[int]) -> dict[str, list[AttentionMap]]:
    """Some layers of each kind, by the kind's name: `blocks.attention`, `decoder.blocks.cross_attention`.

    Negative numbers count from the last layer; numbers of layers that are not there count as the last. Of no layers
    there are no kinds.
    """
    kinds: dict[str, list[AttentionMap]] = {}
    for one in found:
        kinds.setdefault(re.sub(r"\.\d+", "", one.layer), []).append(one)
    return {
        kind: [some[index] for index in sorted({_index(number, len(some)) for number in layers})]
        for kind, some in kinds.items()
        if layers
    }


def _index(number: int, count: int) -> int:
    return min(count - 1, number) if number >= 0 else max(0, count + number)


def attention_picture(found: Sequence[AttentionMap], heads: Sequence[int] | None) -> Any:
    """A matplotlib figure of layers of one kind: each begins a row, and its heads take as many as they need."""
    count = len(found[0].weights)
    shown = sorted({_index(number, count) for number in (range(count) if heads is None else heads)})
    wide, tall = (max(1.6, 0.16 * len(side)) for side in (found[0].keys, found[0].queries))
    columns = max(1, min(math.ceil(math.sqrt(len(shown))), int(WIDEST // wide)))
    rows = -(-len(shown) // columns) * len(found)
    # Margins as long as the longest token: measuring each text, as matplotlib's layouts do, takes longer than drawing.
    left, below = (0.35 + max(map(_inches, side)) for side in (found[0].queries, found[0].keys))
    width, height = left + (wide + 0.1) * columns + 0.9, below + (tall + 0.25) * rows
    figure = new_figure(figsize=(width, height))
    right = 1 - 0.9 / width
    figure.subplots_adjust(left / width, below / height, right, 1 - 0.25 / height, 0.1 / wide, 0.25 / tall)
    axes = figure.subplots(rows, columns, squeeze=False).reshape(len(found), -1)
    most = max(float(one.weights[shown].max()) for one in found)
    for row, one in zip(axes, found, strict=True):
        for axis in row[len(shown) :]:
            axis.remove()
        for place, (axis, head) in enumerate(zip(row, shown, strict=False)):
            image = axis.imshow(
                one.weights[head].numpy(), cmap="Blues", vmin=0, vmax=most, aspect="auto", interpolation="nearest"
            )
            axis.set_title(f"{one.layer}, head {head}", fontsize=7)
            lowest = one is found[-1] and place + columns >= len(shown)  # the tokens of those above are the same
            axis.set_xticks(range(len(one.keys)), one.keys if lowest else [], rotation=90, fontsize=6)
            axis.set_yticks(range(len(one.queries)), one.queries if place % columns == 0 else [], fontsize=6)
    figure.supylabel("query: the token that looks", fontsize=7, x=0.08 / width)
    figure.supxlabel("key: the token looked at", fontsize=7, y=0.04 / height)
    beside = figure.add_axes((right + 0.15 / width, below / height, 0.12 / width, 1 - (below + 0.25) / height))
    scale = figure.colorbar(image, cax=beside)
    scale.set_label("attention weight", fontsize=7)
    scale.ax.tick_params(labelsize=6)
    return legible(figure)


def _inches(token: str) -> float:
    """About as long as a tick's label is; letters beyond Latin are up to twice as wide."""
    return sum(0.05 if letter.isascii() else 0.09 for letter in token)


@torch.no_grad()
def position_picture(position: Position, dim: int, head_dim: int, length: int) -> Any | None:
    """How a scheme tells positions apart: what it adds to the scores of each head, to embeddings, or how it turns the
    first head; None where it does nothing."""
    length = min(MOST_POSITIONS, length)
    device = next((x.device for x in (*position.parameters(), *position.buffers())), torch.device("cpu"))
    positions = torch.arange(length, device=device)
    bias = position.bias(positions, positions)
    if bias is not None:
        pictures = [(f"head {head}", table, "key", "query") for head, table in enumerate(bias.float().cpu())]
    else:
        nothing, ones = torch.zeros(length, dim, device=device), torch.ones(length, 1, head_dim, device=device)
        added, turned = position.embed(nothing, positions), position.rotate(ones, positions)
        tables = {"added to embeddings": added - nothing, "a query of ones, turned": (turned - ones)[:, 0]}
        pictures = [(name, table.float().cpu(), "channel", "position") for name, table in tables.items() if table.any()]
    if not pictures:
        return None
    figure = new_figure(figsize=(3.2 * len(pictures) + 0.8, 3.2), layout="constrained")
    for axis, (title, table, across, down) in zip(
        figure.subplots(1, len(pictures), squeeze=False)[0], pictures, strict=True
    ):
        largest = float(table.abs().max())
        shown = axis.imshow(
            table.numpy(), cmap="RdBu", vmin=-largest, vmax=largest, aspect="auto", interpolation="nearest"
        )
        axis.set(title=title, xlabel=across, ylabel=down)
        figure.colorbar(shown, ax=axis)
    return figure
