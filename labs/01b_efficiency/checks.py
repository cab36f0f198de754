"""What is to be written in lab 1b, what the framework makes of the same inputs, and what usual mistakes make of them.

**T** tokens that look, **S** tokens that are looked at, **K** width of queries and keys, **V** of values, **H** heads,
**G** key/value heads, **B** texts.
"""

from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

import transformer_lab as tl
from transformer_lab.course.checking import Draw, Exercise
from transformer_lab.models.layers.kernels import reference

NO = float("-inf")


def framework_attention(q: Tensor, k: Tensor, v: Tensor, block: int) -> Tensor:
    return scaled_dot_product_attention(q, k, v)


def framework_grouped(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """By the framework's kernel, whose heads come second: (H, T, K), (G, S, K) twice -> (H, T, K)."""
    layouts = {"queries": tl.Layout.of([q.shape[1]]), "keys": tl.Layout.of([k.shape[1]])}
    q, k, v = (x.transpose(0, 1) for x in (q, k, v))
    mixed = reference.attend(q, k, v, **layouts, causal=False, window=None, bias=lambda *_: None)
    return mixed.transpose(0, 1)


def framework_step(keys: Tensor, values: Tensor, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    keys, values = torch.cat([keys, k[None]]), torch.cat([values, v[None]])
    return scaled_dot_product_attention(q[None], keys, values)[0], keys, values


def framework_window(length: int, size: int) -> Tensor:
    positions = tl.Layout.of([length]).positions
    return reference.visible(positions, positions, causal=True, window=size)


def wasted_tokens(lengths: list[int]) -> float:
    return 1 - len(tl.Layout.of(lengths).positions) / (len(lengths) * max(lengths))


# --- inputs ---


def long_texts(draw: Draw) -> tuple[Tensor, Tensor, Tensor, int]:
    """Keys of which the last block is not full, and the largest scores are not in the first."""
    queries, width, values = draw.sizes(3)
    block = draw.choice([4, 5])
    keys = 3 * block + draw.choice([1, 2, 3])
    q, k = draw.normal(queries, width), draw.normal(keys, width)
    k[block:] *= 2
    q[:, 0], k[:, 0] = 0, 1  # rows far apart: some with all scores near 130, some with all near -130
    q[0, 0], q[1, 0] = 130 * width**0.5, -130 * width**0.5
    return q, k, draw.normal(keys, values), block


def some_lengths(draw: Draw) -> tuple[list[int]]:
    lengths = draw.sizes(draw.choice([3, 4, 5]), 2, 40)
    if 2 * sum(lengths) == len(lengths) * max(lengths):  # half of it is: both shares are the same
        lengths[lengths.index(max(lengths))] += 1
    return (lengths,)


def shared_heads(draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
    groups = draw.choice([2, 3])
    heads = groups * draw.choice([2, 3])
    queries, keys, width = draw.sizes(3, 7, 14)
    return draw.normal(heads, queries, width), draw.normal(groups, keys, width), draw.normal(groups, keys, width)


def one_more(draw: Draw) -> tuple[Tensor, ...]:
    length, width, values = draw.sizes(3)
    return tuple(draw.normal(*shape) for shape in ((length, width), (length, values), (width,), (width,), (values,)))


def a_window(draw: Draw) -> tuple[int, int]:
    return draw.randint(8, 14), draw.randint(2, 6)


# --- mistakes ---


def in_blocks(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    block: int,
    *,
    old_sum: bool = True,
    old_mixed: bool = True,
    scale: bool = True,
    divide: bool = True,
    whole: bool = False,
    running: bool = True,
) -> Tensor:
    """Attention block by block, with one thing left out."""
    most = torch.full((len(q), 1), NO)
    total, mixed = torch.zeros(len(q), 1), torch.zeros(len(q), v.shape[1])
    for begin in range(0, len(k) - block + 1 if whole else len(k), block):
        scores = q @ k[begin : begin + block].T * (q.shape[1] ** -0.5 if scale else 1)
        here = scores.max(-1, keepdim=True).values
        largest = torch.maximum(most, here) if running else here
        powers, less = (scores - largest).exp(), (most - largest).exp() if running else torch.ones_like(most)
        total = total * (less if old_sum else 1) + powers.sum(-1, keepdim=True)
        mixed = mixed * (less if old_mixed else 1) + powers @ v[begin : begin + block]
        most = largest
    return mixed / total if divide else mixed


def without_largest(q: Tensor, k: Tensor, v: Tensor, block: int) -> Tensor:
    powers = (q @ k.T * q.shape[1] ** -0.5).exp()
    return powers @ v / powers.sum(-1, keepdim=True)


def mean_of_blocks(q: Tensor, k: Tensor, v: Tensor, block: int) -> Tensor:
    parts = [scaled_dot_product_attention(q, x, y) for x, y in zip(k.split(block), v.split(block), strict=True)]
    return torch.stack(parts).mean(0)


def last_block(q: Tensor, k: Tensor, v: Tensor, block: int) -> Tensor:
    return scaled_dot_product_attention(q, k.split(block)[-1], v.split(block)[-1])


def first_block(q: Tensor, k: Tensor, v: Tensor, block: int) -> Tensor:
    return scaled_dot_product_attention(q, k[:block], v[:block])


def one_step(
    keys: Tensor, values: Tensor, q: Tensor, k: Tensor, v: Tensor, *, seen: bool = True, scale: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    longer, more = torch.cat([keys, k[None]]), torch.cat([values, v[None]])
    looked, told = (longer, more) if seen else (keys, values)
    weights = (looked @ q * (len(q) ** -0.5 if scale else 1)).softmax(-1)
    return weights @ told, longer, more


def other_step(
    keys: Tensor, values: Tensor, q: Tensor, k: Tensor, v: Tensor, how: str
) -> tuple[Tensor, Tensor, Tensor]:
    mixed, longer, more = one_step(keys, values, q, k, v)
    if how == "front":
        return mixed, torch.cat([k[None], keys]), torch.cat([v[None], values])
    if how == "not kept":
        return mixed, keys, values
    if how == "replaced":
        return one_step(keys[:-1], values[:-1], q, k, v)
    if how == "query kept":
        return mixed, torch.cat([keys, q[None]]), more
    if how == "exchanged":
        return mixed, more, longer
    return (v, longer, more)


def seen(length: int, size: int, nearest: int, farthest: int) -> Tensor:
    distance = torch.arange(length)[:, None] - torch.arange(length)
    return (distance >= nearest) & (distance <= farthest)


EXERCISES = [
    Exercise(
        name="streamed",
        shape="(T, V)",
        draw=long_texts,
        right=framework_attention,
        mistakes={
            "a new largest score makes the old powers smaller: the sum so far is to be multiplied, too": partial(
                in_blocks, old_sum=False
            ),
            "a new largest score makes the old powers smaller: what is mixed so far is to be multiplied, too": partial(
                in_blocks, old_mixed=False
            ),
            "a new largest score makes the old powers smaller: multiply the sum and what is mixed by exp(old - new)": (
                partial(in_blocks, old_sum=False, old_mixed=False)
            ),
            "the scores are not divided by the root of K": partial(in_blocks, scale=False),
            "what is mixed is still to be divided by the sum": partial(in_blocks, divide=False),
            "the last block is shorter than the others, and missing here": partial(in_blocks, whole=True),
            "the largest score is the largest so far, and not that of each block": partial(in_blocks, running=False),
            "exp of a large score is infinite, and of a small one 0: take the largest so far away": without_largest,
            "blocks do not count the same: where the scores are large, a block has more of the weight": mean_of_blocks,
            "this is the last block alone": last_block,
            "this is the first block alone": first_block,
        },
    ),
    Exercise(
        name="wasted",
        draw=some_lengths,
        right=wasted_tokens,
        mistakes={
            "this is the share of the tokens that mean something; the others are asked for": (
                lambda lengths: 1 - wasted_tokens(lengths)
            ),
            "a share of all tokens of the filled-up batch, and not of those that mean something": (
                lambda lengths: len(lengths) * max(lengths) / sum(lengths) - 1
            ),
            "this is how many tokens are wasted; their share is asked for": (
                lambda lengths: len(lengths) * max(lengths) - sum(lengths)
            ),
            "this is how much a text is filled up, as a mean; the share of all tokens is asked for": (
                lambda lengths: max(lengths) - sum(lengths) / len(lengths)
            ),
            "the filled-up batch is as many texts as there are times the longest": (
                lambda lengths: 1 - sum(lengths) / max(lengths)
            ),
            "between 0 and 1: this is in per cent": lambda lengths: 100 * wasted_tokens(lengths),
            "// leaves whole numbers: divide by /": lambda lengths: 1 - sum(lengths) // (len(lengths) * max(lengths)),
            "this is the waste of the shortest text alone": lambda lengths: 1 - min(lengths) / max(lengths),
        },
    ),
    Exercise(
        name="grouped",
        shape="(H, T, K)",
        draw=shared_heads,
        right=framework_grouped,
        mistakes={
            "neighbouring heads share: with H = 4 and G = 2 heads 0 and 1 the first: repeat_interleave, not repeat": (
                lambda q, k, v: scaled_dot_product_attention(q, *(x.repeat(len(q) // len(k), 1, 1) for x in (k, v)))
            ),
            "k and v have fewer heads than q: each head, dimension 0, is to be repeated H / G times": (
                lambda q, k, v: scaled_dot_product_attention(q, k, v)
            ),
            "this uses the first key/value head for all": (
                lambda q, k, v: scaled_dot_product_attention(
                    q, k[:1].expand(len(q), -1, -1), v[:1].expand(len(q), -1, -1)
                )
            ),
            "the values are shared as the keys are; these are of the first head": (
                lambda q, k, v: scaled_dot_product_attention(
                    q, k.repeat_interleave(len(q) // len(k), 0), v[:1].expand(len(q), -1, -1)
                )
            ),
            "the heads of k and v are not averaged: each group has its own": (
                lambda q, k, v: scaled_dot_product_attention(q, *(x.mean(0).expand(len(q), -1, -1) for x in (k, v)))
            ),
            "each head of q looks, none is left out: H come out": (
                lambda q, k, v: scaled_dot_product_attention(q[:: len(q) // len(k)], k, v)
            ),
            "the scores are not divided by the root of K": (
                lambda q, k, v: scaled_dot_product_attention(
                    q, *(x.repeat_interleave(len(q) // len(k), 0) for x in (k, v)), scale=1.0
                )
            ),
        },
    ),
    Exercise(
        name="step",
        shape="(mixed, keys, values)",
        draw=one_more,
        right=framework_step,
        mistakes={
            "the new token looks at itself, too: add its key and value first": partial(one_step, seen=False),
            "the scores are not divided by the root of K": partial(one_step, scale=False),
            "the new key and value come last: texts grow at their end": partial(other_step, how="front"),
            "the new key and value are to be kept for the next step": partial(other_step, how="not kept"),
            "the last key and value are written over: nothing is to be lost": partial(other_step, how="replaced"),
            "the query is kept in place of the key: a query is used once and never again": partial(
                other_step, how="query kept"
            ),
            "keys come before values in what is given back": partial(other_step, how="exchanged"),
            "this is the new value alone: the values of all are mixed": partial(other_step, how="own"),
        },
    ),
    Exercise(
        name="window",
        shape="(T, T)",
        draw=a_window,
        right=framework_window,
        mistakes={
            "a window of 3 is a token and the 2 before it: this is one too many": (
                lambda length, size: seen(length, size, 0, size)
            ),
            "a token sees itself, too": lambda length, size: seen(length, size, 1, size - 1),
            "a window of 3 is a token and the 2 before it: this is one too few": (
                lambda length, size: seen(length, size, 0, size - 2)
            ),
            "a window of 3 is a token and the 2 before it: this begins with the one before": (
                lambda length, size: seen(length, size, 1, size)
            ),
            "no token sees those after it": lambda length, size: seen(length, size, 1 - size, size - 1),
            "these are those after a token: rows are queries": lambda length, size: seen(length, size, 1 - size, 0),
            "the window is missing: what is far away is not seen": lambda length, size: seen(length, size, 0, length),
            "this is what the window leaves out: what is near is seen": (
                lambda length, size: seen(length, size, size, length)
            ),
            "the window moves with the token, and does not begin anew after each": (
                lambda length, size: (
                    (torch.arange(length)[:, None] // size == torch.arange(length) // size)
                    & (torch.arange(length)[:, None] >= torch.arange(length))
                )
            ),
            "True and False are asked for": lambda length, size: seen(length, size, 0, size - 1).float(),
        },
    ),
]
