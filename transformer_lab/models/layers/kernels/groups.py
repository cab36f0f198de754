"""Sequences regrouped by length, for kernels that work on rectangles of texts.

Sequences of one length are a view of the packed batch and need no mask. Others are sorted, cut into groups of
similar length and padded within the group; a causal group needs no mask either, as its padding lies in the future.

**N** tokens of a batch, **M** keys, **H** heads, **G** key/value heads, **K** head width; in a group **B** sequences of
**T** tokens, padding included.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from transformer_lab.layout import Layout
from transformer_lab.models.layers.kernels.reference import Bias, visible

# Queries (B, T, H, K), keys and values (B, M, G, K), what is added to scores, or None, and whether each query sees
# only keys up to its own: the mixed values (B, T, H, K).
Within = Callable[[Tensor, Tensor, Tensor, Tensor | None, bool], Tensor]

# A group's shortest sequence has at least this share of its longest one: less waste against fewer calls. 1 to 4 % of
# what is computed is then padding; in cross-attention, where both sides have to be similar, 1 to 3 %.
SIMILAR = 0.9


@dataclass(frozen=True)
class Side:
    """The queries of all groups, or their keys: where they lie in the packed batch, and where that lies in them."""

    index: Tensor  # (P,) of each slot of the groups, end to end, the token; padding repeats its sequence's first
    order: Tensor  # (N,) of each token the slot
    padding: Tensor  # the slots that are padding
    sizes: list[int]  # slots of each group
    lengths: list[int]  # of the sequences of each group, padding included

    def spread(self, x: Tensor) -> list[Tensor]:
        """(N, H, K) as groups of (B, T, H, K)."""
        slots: Tensor = _Spread.apply(x, self.index, self.order)  # type: ignore[no-untyped-call]
        parts = slots.split(self.sizes)
        return [part.unflatten(0, (-1, length)) for part, length in zip(parts, self.lengths, strict=True)]

    def collect(self, groups: list[Tensor]) -> Tensor:
        """Groups of (B, T, H, K) as (N, H, K)."""
        slots = torch.cat([group.flatten(0, 1) for group in groups])
        return _Collect.apply(slots, self.index, self.order, self.padding)  # type: ignore[no-untyped-call]


class _Spread(torch.autograd.Function):
    """Packed rows to slots. Nothing learns from padding: its gradient is zero, as nobody looks at a padded key and
    what a padded query finds is dropped. So this is a copy of rows either way, not a sum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, order: Tensor) -> Tensor:
        ctx.save_for_backward(order)
        return x.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (order,) = ctx.saved_tensors
        return grads[0].index_select(0, order), None, None


class _Collect(torch.autograd.Function):
    """Places back to packed rows; what stands on padding is dropped."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, order: Tensor, padding: Tensor) -> Tensor:
        ctx.save_for_backward(index, padding)
        return x.index_select(0, order)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        index, padding = ctx.saved_tensors
        return grads[0].index_select(0, index).index_fill_(0, padding, 0), None, None, None


@dataclass(frozen=True)
class Groups:
    """A batch cut into groups of sequences of similar length."""

    queries: Side
    keys: Side
    allowed: list[Tensor | None]  # of each group (B, 1, 1, K), False where a key is padding; None where none is


def attend(
    within: Within,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    queries: Layout,
    keys: Layout,
    causal: bool,
    window: int | None,
    bias: Bias,
) -> Tensor:
    """Attention of a packed batch, group by group: (N, H, K), (M, G, K), (M, G, K) -> (N, H, K)."""
    rules: dict[str, Any] = {"causal": causal, "window": window, "bias": bias}
    if queries.equal and keys.equal:
        size = queries.num_sequences
        q, k, v = (x.unflatten(0, (size, -1)) for x in (q, k, v))  # (B, T, H, K)
        return _attend_group(within, q, k, v, allowed=None, **rules).flatten(0, 1)
    return _attend_groups(within, q, k, v, queries, keys, rules)


def _attend_groups(
    within: Within, q: Tensor, k: Tensor, v: Tensor, queries: Layout, keys: Layout, rules: dict[str, Any]
) -> Tensor:
    groups = regroup(queries, keys)
    parts = zip(groups.queries.spread(q), groups.keys.spread(k), groups.keys.spread(v), groups.allowed, strict=True)
    return groups.queries.collect(
        [
            _attend_group(within, q, k, v, allowed=None if rules["causal"] else allowed, **rules)
            for q, k, v, allowed in parts
        ]
    )


@cache
def stay_uncompiled() -> None:
    """For whoever compiles a model: each batch has groups of its own, and would be compiled anew.

    Not a decorator, as it takes PyTorch two seconds to import what that needs.
    """
    global _attend_groups
    _attend_groups = torch.compiler.disable(_attend_groups)


def _attend_group(
    within: Within,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    allowed: Tensor | None,
    causal: bool,
    window: int | None,
    bias: Bias,
) -> Tensor:
    """Attention within B sequences of one length: q (B, T, H, K), k and v (B, M, G, K) -> (B, T, H, K)."""
    mask = _mask(q, q.shape[1], k.shape[1], allowed, causal=causal, window=window, bias=bias)
    if mask is None:
        return within(q, k, v, allowed, causal)
    return within(q, k, v, mask, False)


def _mask(
    like: Tensor,
    num_queries: int,
    num_keys: int,
    allowed: Tensor | None,
    *,
    causal: bool,
    window: int | None,
    bias: Bias,
) -> Tensor | None:
    """What is added to scores where a bias or a window says so, -inf where a key may not be seen: (B or 1, H or 1, T,
    M); None where `causal` and `allowed` say all."""
    query_positions = torch.arange(num_queries, device=like.device)
    key_positions = torch.arange(num_keys, device=like.device)
    mask = bias(query_positions, key_positions)  # (H, T, M)
    if mask is None and window is None:
        return None
    hidden = ~visible(query_positions, key_positions, causal, window)[None, None]
    if allowed is not None:
        hidden = hidden | ~allowed  # (B, 1, T, M)
        hidden &= ~hidden.all(-1, keepdim=True)  # padding far from any key sees all: a softmax of nothing is NaN
    mask = like.new_zeros(hidden.shape) if mask is None else mask.to(like.dtype)[None]
    return mask.masked_fill(hidden, float("-inf"))


def masks(groups: Groups, like: Tensor, *, causal: bool, window: int | None, bias: Bias) -> list[Tensor | None]:
    """Of each group what is added to its scores: (B or 1, H or 1, T or 1, M); None where `causal` says all."""
    found: list[Tensor | None] = []
    for num_queries, num_keys, allowed in zip(groups.queries.lengths, groups.keys.lengths, groups.allowed, strict=True):
        given = None if causal else allowed
        mask = _mask(like, num_queries, num_keys, given, causal=causal, window=window, bias=bias)
        if mask is None and given is not None:
            mask = like.new_zeros(given.shape).masked_fill_(~given, float("-inf"))  # (B, 1, 1, M)
        found.append(mask)
    return found


def regroup(queries: Layout, keys: Layout, spared: int = 0) -> Groups:
    """The sequences of a batch, and of what it looks at, in groups of similar lengths; worked out once a batch.

    Less similar ones stay together where the scores of a group's padding are no more than `spared`, which a call of the
    kernel costs.
    """
    name = ("groups", id(keys), spared)  # the keys are kept alive, so the number stays their own
    if name not in queries.scratch:
        queries.scratch[name] = keys, _similar_lengths(queries, keys, spared)
    return queries.scratch[name][1]


def _similar_lengths(queries: Layout, keys: Layout, spared: int) -> Groups:
    device = queries.offsets.device
    query_offsets, key_offsets = queries.offsets.cpu().long(), keys.offsets.cpu().long()
    everyone = torch.arange(queries.num_sequences)
    groups = [
        members
        for rows in _similar(everyone, query_offsets.diff(), spared)
        for members in _similar(rows, key_offsets.diff(), spared)
    ]
    query_side, _ = _side(groups, query_offsets, device)
    key_side, real = _side(groups, key_offsets, device)
    allowed = [None if each.all() else each[:, None, None, :].to(device) for each in real]
    return Groups(query_side, key_side, allowed)


def _side(groups: list[Tensor], offsets: Tensor, device: torch.device) -> tuple[Side, list[Tensor]]:
    """One side of the groups, and of each group which slots are real: (B, T)."""
    indices, real = zip(*(_padded(offsets[rows], offsets.diff()[rows]) for rows in groups), strict=True)
    index, is_real = (torch.cat([part.flatten() for part in parts]) for parts in (indices, real))
    order = torch.empty(int(offsets[-1]), dtype=torch.int64)
    slots = is_real.nonzero().squeeze(1)
    order[index[slots]] = slots
    padding = (~is_real).nonzero().squeeze(1)
    sizes, lengths = [part.numel() for part in indices], [part.shape[1] for part in indices]
    return Side(index.to(device), order.to(device), padding.to(device), sizes, lengths), list(real)


def _similar(rows: Tensor, lengths: Tensor, spared: int) -> list[Tensor]:
    """The rows by length, cut wherever a shorter one would be padded too much."""
    rows = rows[lengths[rows].argsort(stable=True)]
    ascending = lengths[rows].tolist()
    cuts, padding = [len(ascending)], 0
    for slot in range(len(ascending) - 1, -1, -1):
        longest = ascending[cuts[-1] - 1]
        padding += longest - ascending[slot]
        if ascending[slot] < SIMILAR * longest and padding * longest > spared:
            cuts.append(slot + 1)
            padding = 0
    return [rows[begin:end] for begin, end in itertools.pairwise([0, *reversed(cuts)])]


def _padded(starts: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Indices of B sequences, (B, T), and which of them are real."""
    slots = torch.arange(int(lengths.max()))
    real = slots < lengths[:, None]
    return starts[:, None] + slots * real, real
