"""What learners hand in for lab 1b: right ones written differently, and wrong ones with what must be said of them."""

import math

import torch
from torch.nn.functional import scaled_dot_product_attention as sdpa

NO_HINT = None


def streamed_by_row(q, k, v, block):
    found = []
    for row in q:
        most, total, mixed = -math.inf, 0.0, torch.zeros(v.shape[1])
        for begin in range(0, len(k), block):
            scores = k[begin : begin + block] @ row / math.sqrt(len(row))
            largest = max(most, float(scores.detach().max()))
            powers = (scores - largest).exp()
            less = math.exp(most - largest)
            total = total * less + powers.sum()
            mixed = mixed * less + powers @ v[begin : begin + block]
            most = largest
        found.append(mixed / total)
    return torch.stack(found)


def streamed_by_logs(q, k, v, block):
    """Two parts are joined by the logarithms of their sums."""
    mixed, log = None, None
    for keys, values in zip(k.split(block), v.split(block), strict=True):
        scores = q @ keys.T / q.shape[1] ** 0.5
        here, part = scores.logsumexp(-1, keepdim=True), scores.softmax(-1) @ values
        if mixed is None:
            mixed, log = part, here
        else:
            both = torch.logaddexp(log, here)
            mixed, log = mixed * (log - both).exp() + part * (here - both).exp(), both
    return mixed


def without_the_largest(q, k, v, block):
    total, mixed = 0, 0
    for keys, values in zip(k.split(block), v.split(block), strict=True):
        powers = (q @ keys.T / q.shape[1] ** 0.5).exp()
        total, mixed = total + powers.sum(-1, keepdim=True), mixed + powers @ values
    return mixed / total


def softmax_of_each(q, k, v, block):
    return sum(
        (q @ x.T / q.shape[1] ** 0.5).softmax(-1) @ y for x, y in zip(k.split(block), v.split(block), strict=True)
    )


def forgets_what_was(q, k, v, block):
    for x, y in zip(k.split(block), v.split(block), strict=True):
        scores = q @ x.T / q.shape[1] ** 0.5
        mixed = scores.softmax(-1) @ y
    return mixed


def skips_the_rest(q, k, v, block):
    count = len(k) // block * block
    return sdpa(q, k[:count], v[:count])


def blocks_of_queries(q, k, v, block):
    return torch.stack([sdpa(x, k, v) for x in q.split(block)])


def rescaled_the_wrong_way(q, k, v, block):
    most = torch.full((len(q), 1), -torch.inf)
    total, mixed = 0, torch.zeros(len(q), v.shape[1])
    for keys, values in zip(k.split(block), v.split(block), strict=True):
        scores = q @ keys.T / q.shape[1] ** 0.5
        largest = torch.maximum(most, scores.max(-1, keepdim=True).values)
        less = (largest - most).clamp(max=50).exp()
        powers = (scores - largest).exp()
        total, mixed, most = total * less + powers.sum(-1, keepdim=True), mixed * less + powers @ values, largest
    return mixed / total


def window_by_loops(length, size):
    return torch.tensor([[0 <= row - column < size for column in range(length)] for row in range(length)])


RIGHT = {
    "streamed": [streamed_by_row, streamed_by_logs],
    "wasted": [
        lambda lengths: sum(max(lengths) - length for length in lengths) / (max(lengths) * len(lengths)),
        lambda lengths: 1 - sum(lengths) / len(lengths) / max(lengths),
    ],
    "grouped": [
        lambda q, k, v: sdpa(q, k, v, enable_gqa=True),
        lambda q, k, v: sdpa(q.unflatten(0, (len(k), -1)), k[:, None], v[:, None]).flatten(0, 1),
        lambda q, k, v: torch.stack(
            [sdpa(x, k[i * len(k) // len(q)], v[i * len(k) // len(q)]) for i, x in enumerate(q)]
        ),
    ],
    "step": [
        lambda keys, values, q, k, v: (
            sdpa(q[None], torch.vstack([keys, k]), torch.vstack([values, v]))[0],
            torch.vstack([keys, k]),
            torch.vstack([values, v]),
        ),
        lambda keys, values, q, k, v: [
            (torch.cat([keys, k[None]]) @ q / math.sqrt(len(q))).softmax(0) @ torch.cat([values, v[None]]),
            torch.cat([keys, k[None]]),
            torch.cat([values, v[None]]),
        ],
    ],
    "window": [
        window_by_loops,
        lambda length, size: torch.ones(length, length).tril().triu(1 - size).bool(),
        lambda length, size: (
            torch.ones(length, length, dtype=torch.bool).tril() & ~torch.ones(length, length).tril(-size).bool()
        ),
    ],
}
WRONG = {
    "streamed": [
        (softmax_of_each, NO_HINT),
        (without_the_largest, "infinite"),
        (forgets_what_was, "the last block alone"),
        (skips_the_rest, "the last block is shorter"),
        (blocks_of_queries, NO_HINT),
        (rescaled_the_wrong_way, NO_HINT),
        (lambda q, k, v, block: sdpa(q, k[:block], v[:block]), "the first block alone"),
        (lambda q, k, v, block: softmax_of_each(q, k, v, block) / math.ceil(len(k) / block), "do not count the same"),
        (lambda q, k, v, block: streamed_by_logs(q * q.shape[1] ** 0.5, k, v, block), "not divided by the root"),
        (lambda q, k, v, block: sdpa(q, k, v, is_causal=True), NO_HINT),
        (lambda q, k, v, block: streamed_by_row(q, k, v, 0), "ValueError"),
    ],
    "wasted": [
        (lambda lengths: sum(lengths) / (len(lengths) * max(lengths)), "the others are asked for"),
        (lambda lengths: len(lengths) * max(lengths) - sum(lengths), "their share"),
        (lambda lengths: 100 - 100 * sum(lengths) / len(lengths) / max(lengths), "per cent"),
        (lambda lengths: sum(max(lengths) - length for length in lengths) / sum(lengths), "not of those that mean"),
        (lambda lengths: sum(max(lengths) - length for length in lengths) // sum(lengths), NO_HINT),
        (lambda lengths: (max(lengths) - min(lengths)) / max(lengths), "shortest"),
        (lambda lengths: 1 - sum(lengths) / (len(lengths) * lengths[0]) - 1, NO_HINT),
        (lambda lengths: print(1 - sum(lengths) / (len(lengths) * max(lengths))), "return"),
        (lambda lengths: 1 - lengths.sum() / lengths.max(), "AttributeError"),
    ],
    "grouped": [
        (lambda q, k, v: sdpa(q, k, v), "is to be repeated"),
        (lambda q, k, v: sdpa(q, *(torch.cat([x] * (len(q) // len(x))) for x in (k, v))), "not repeat"),
        (lambda q, k, v: sdpa(q, k[:1], v[:1]), "the first key/value head"),
        (lambda q, k, v: sdpa(q, k.mean(0, keepdim=True), v.mean(0, keepdim=True)), "not averaged"),
        (lambda q, k, v: sdpa(q[: len(k)], k, v), NO_HINT),
        (lambda q, k, v: sdpa(q.unflatten(0, (len(k), -1)).mean(1), k, v), NO_HINT),
        (lambda q, k, v: sdpa(q, k.repeat(len(q) // len(k), 1, 1), v.repeat_interleave(len(q) // len(v), 0)), NO_HINT),
        (lambda q, k, v: sdpa(q.unflatten(0, (-1, len(k))), k, v).flatten(0, 1), "not repeat"),
        (lambda q, k, v: sdpa(q.unflatten(0, (len(k), -1)), k[:, None], v[:, None]), NO_HINT),
    ],
    "step": [
        (lambda keys, values, q, k, v: sdpa(q[None], keys, values)[0], "3 things are to come out"),
        (lambda keys, values, q, k, v: (sdpa(q[None], keys, values)[0], keys, values), NO_HINT),
        (
            lambda keys, values, q, k, v: (
                sdpa(q[None], keys, values)[0],
                torch.vstack([keys, k]),
                torch.vstack([values, v]),
            ),
            "looks at itself",
        ),
        (
            lambda keys, values, q, k, v: (
                sdpa(q[None], torch.vstack([keys, k]), torch.vstack([values, v]))[0],
                keys,
                values,
            ),
            "kept for the next step",
        ),
        (
            lambda keys, values, q, k, v: (
                sdpa(q[None], torch.vstack([keys, k]), torch.vstack([values, v])),
                torch.vstack([keys, k]),
                torch.vstack([values, v]),
            ),
            "mixed: of",
        ),
        (
            lambda keys, values, q, k, v: (
                sdpa(q[None], torch.vstack([k, keys]), torch.vstack([v, values]))[0],
                torch.vstack([k, keys]),
                torch.vstack([v, values]),
            ),
            "grow at their end",
        ),
        (lambda keys, values, q, k, v: (v, torch.cat([keys, k]), torch.cat([values, v])), "RuntimeError"),
        (lambda keys, values, q, k, v: (keys.append(k), values.append(v)), "AttributeError"),
        (
            lambda keys, values, q, k, v: (
                (torch.vstack([keys, k]) @ q).softmax(0) @ torch.vstack([values, v]),
                torch.vstack([keys, k]),
                torch.vstack([values, v]),
            ),
            "not divided",
        ),
    ],
    "window": [
        (lambda length, size: torch.ones(length, length).tril().triu(-size).bool(), "one too many"),
        (lambda length, size: torch.ones(length, length).tril().bool(), "the window is missing"),
        (lambda length, size: torch.ones(length, length).triu(1 - size).bool(), NO_HINT),
        (lambda length, size: torch.ones(length, length).triu().tril(size - 1).bool(), "rows are queries"),
        (lambda length, size: torch.ones(length, length).tril(size - 1).triu(1 - size).bool(), "after it"),
        (lambda length, size: torch.ones(length, length).tril(-1).triu(-size).bool(), "the one before"),
        (lambda length, size: torch.ones(length, length).tril().triu(1 - size), "True and False"),
        (lambda length, size: torch.ones(size, size).tril().bool(), NO_HINT),
        (lambda length, size: torch.ones(length, length).tril(-size).bool(), "leaves out"),
    ],
}
