"""PyTorch's scaled dot product attention over sequences regrouped by length; runs on every device.

Sequences of one length are a view of the packed batch and need no mask. Others are sorted, cut into groups of
similar length and padded within the group; a causal group needs no mask either, as its padding lies in the future.
"""

import itertools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from transformer_lab.layout import Layout
from transformer_lab.models.layers.kernels.reference import Bias, visible

# A group's shortest sequence has at least this share of its longest one: less waste against fewer calls. 1 to 4 % of
# what is computed is then padding; in cross-attention, where both sides have to be similar, 1 to 3 %.
SIMILAR = 0.9


@dataclass(frozen=True)
class Group:
    """Sequences of similar length, as indices into the packed batch; padding points at the sequence's start."""

    queries: Tensor  # (B, Q)
    keys: Tensor  # (B, K)
    keep: Tensor | None  # (B, 1, 1, K), False where a key is padding; None where there is none


def attend(q: Tensor, k: Tensor, v: Tensor, *, queries: Layout, keys: Layout, causal: bool,
           window: int | None, bias: Bias) -> Tensor:  # fmt: skip
    rules: dict[str, Any] = {"causal": causal, "window": window, "bias": bias}
    if queries.equal and keys.equal:
        size = queries.num_sequences
        q, k, v = (x.unflatten(0, (size, -1)) for x in (q, k, v))  # (B, T, H, K)
        return _attend_group(q, k, v, keep=None, **rules).flatten(0, 1)
    groups, order = _regroup(queries, keys)
    outputs = []
    for group in groups:
        keep = None if causal else group.keep
        mixed = _attend_group(q[group.queries], k[group.keys], v[group.keys], keep=keep, **rules)
        outputs.append(mixed.flatten(0, 1))  # (B * Q, H, K)
    return torch.cat(outputs)[order]


def _attend_group(q: Tensor, k: Tensor, v: Tensor, *, keep: Tensor | None, causal: bool, window: int | None,
                  bias: Bias) -> Tensor:  # fmt: skip
    """Attention within B sequences of one length: q (B, Q, H, K), k and v (B, K, G, K) -> (B, Q, H, K)."""
    query_positions = torch.arange(q.shape[1], device=q.device)
    key_positions = torch.arange(k.shape[1], device=k.device)
    mask = bias(query_positions, key_positions)  # (H, Q, K)
    if mask is not None or window is not None:
        hidden = ~visible(query_positions, key_positions, causal, window)
        if keep is not None:
            hidden = hidden | ~keep  # (B, 1, Q, K)
        mask = q.new_zeros(hidden.shape) if mask is None else mask.to(q.dtype)
        mask = mask.masked_fill(hidden, float("-inf"))
        mask = mask.expand(q.shape[0], q.shape[2], -1, -1)
        causal = False
    else:
        mask = keep
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    grouped = q.shape[1] != k.shape[1]
    mixed = scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=grouped)
    return mixed.transpose(1, 2)


def _regroup(queries: Layout, keys: Layout) -> tuple[list[Group], Tensor]:
    """The groups of a batch, and where each packed token lies in their concatenated outputs: (N,)."""
    name = ("groups", id(keys))  # with itself, and with a decoder's memory; kept alive, so the number stays its own
    if name not in queries.scratch:
        queries.scratch[name] = keys, _similar_lengths(queries, keys)
    return queries.scratch[name][1]  # type: ignore[no-any-return]


def _similar_lengths(queries: Layout, keys: Layout) -> tuple[list[Group], Tensor]:
    device = queries.offsets.device
    query_offsets, key_offsets = queries.offsets.cpu().long(), keys.offsets.cpu().long()
    query_lengths, key_lengths = query_offsets.diff(), key_offsets.diff()
    groups, order, written = [], torch.empty(int(query_offsets[-1]), dtype=torch.int64), 0
    everyone = torch.arange(queries.num_sequences)
    for rows in _similar(everyone, query_lengths):
        for members in _similar(rows, key_lengths):
            query_index, query_real = _padded(query_offsets[members], query_lengths[members])
            key_index, key_real = _padded(key_offsets[members], key_lengths[members])
            order[query_index[query_real]] = written + query_real.flatten().nonzero().squeeze(1)
            written += query_index.numel()
            keep = None if key_real.all() else key_real[:, None, None, :].to(device)
            groups.append(Group(query_index.to(device), key_index.to(device), keep))
    return groups, order.to(device)


def _similar(rows: Tensor, lengths: Tensor) -> list[Tensor]:
    """The rows by length, cut wherever a shorter one would be padded too much."""
    rows = rows[lengths[rows].argsort(stable=True)]
    ascending = lengths[rows].tolist()
    cuts = [len(ascending)]
    for place in range(len(ascending) - 1, -1, -1):
        if ascending[place] < SIMILAR * ascending[cuts[-1] - 1]:
            cuts.append(place + 1)
    return [rows[begin:end] for begin, end in itertools.pairwise([0, *reversed(cuts)])]


def _padded(starts: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Indices of B sequences, (B, T), and which of them are real."""
    places = torch.arange(int(lengths.max()))
    real = places < lengths[:, None]
    return starts[:, None] + places * real, real
