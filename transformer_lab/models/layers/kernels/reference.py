"""Attention as the textbook writes it: scores, softmax, weighted sum (Vaswani et al., 2017, arXiv:1706.03762).

The oracle of the tests and the eye of the attention pictures: slow, quadratic in the whole batch, and plain.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from transformer_lab.layout import Layout

Bias = Callable[[Tensor, Tensor], Tensor | None]


def visible(query_positions: Tensor, key_positions: Tensor, causal: bool, window: int | None) -> Tensor:
    """Which keys a query may look at within one sequence: (Q, K), True where it may."""
    distance = query_positions[..., :, None] - key_positions[..., None, :]
    allowed = torch.ones_like(distance, dtype=torch.bool)
    if causal:
        allowed &= distance >= 0
    if window is not None:
        allowed &= distance.abs() < window
    return allowed


def weights(
    q: Tensor, k: Tensor, *, queries: Layout, keys: Layout, causal: bool, window: int | None, bias: Bias
) -> Tensor:
    """How much each query looks at each key of the whole batch: (H, N, M); rows sum to 1."""
    k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)  # (M, H, K)
    scores = torch.einsum("nhk,mhk->hnm", q, k) * q.shape[-1] ** -0.5
    added = bias(queries.positions, keys.positions)
    if added is not None:
        scores = scores + added
    allowed = visible(queries.positions, keys.positions, causal, window)
    allowed &= queries.sequence[:, None] == keys.sequence[None, :]
    return scores.masked_fill(~allowed, float("-inf")).softmax(dim=-1)


def attend(
    q: Tensor, k: Tensor, v: Tensor, *, queries: Layout, keys: Layout, causal: bool, window: int | None, bias: Bias
) -> Tensor:
    share = weights(q, k, queries=queries, keys=keys, causal=causal, window=window, bias=bias)
    v = v.repeat_interleave(q.shape[1] // v.shape[1], dim=1)
    return torch.einsum("hnm,mhk->nhk", share, v)
