"""Attention in the textbook's three steps, each for many texts at once: a product, a softmax, a product.

On a CPU that multiplies bf16, its matrix units do the two products of each way forward and the five of each way back,
which PyTorch's flash kernel leaves to others. Like that kernel, this one never holds the scores of a whole batch: it
takes a few texts at a time, and some of their queries, so that scores stay in the processor's cache (Rabe and Staats,
2021, arXiv:2112.05682).

**N** tokens of a batch, **M** of what it looks at, **H** heads, **G** key/value heads, **K** head width; in a group
**B** texts of **Q** queries and **T** keys.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor

from transformer_lab.layout import Layout
from transformer_lab.models.layers.kernels import groups
from transformer_lab.models.layers.kernels.reference import Bias

SCORES_AT_ONCE = 4 << 20  # bytes; more fall out of the cache, with fewer the products are small
SCORES_OF_A_CALL = 10_000  # which take as long as what a group costs whatever its size: so many may be padding's
QUERIES_AT_ONCE = {True: 128, False: 256}  # causal or not: of a block of queries, keys behind the last are spared


@dataclass(frozen=True)
class Rows:
    """Where the heads of tokens lie in groups, all of a text's first head before its second, and where from."""

    index: Tensor  # (P·H,) of each row of the groups the row of the packed batch, (N·heads, K)
    order: Tensor  # (N·H,) of each row of the packed batch, (N·H, K), the row of the groups
    padding: Tensor  # the rows of the groups that are padding

    @classmethod
    def of(cls, side: groups.Side, num_heads: int, shared_by: int = 1) -> "Rows":
        """For `num_heads` in the groups, of which so many share one of the packed batch."""
        slots = torch.arange(len(side.index))
        counts = torch.tensor(side.sizes)
        length = torch.tensor(side.lengths).repeat_interleave(counts)
        begin = torch.tensor([0, *accumulate(side.sizes)][:-1]).repeat_interleave(counts)
        place = (slots - begin) % length
        heads = torch.arange(num_heads)
        rows = ((slots - place) * num_heads + place)[:, None] + length[:, None] * heads  # (P, H)
        index = torch.empty(rows.numel(), dtype=torch.int64)
        index[rows.flatten()] = (side.index[:, None] * (num_heads // shared_by) + heads // shared_by).flatten()
        return cls(index, rows[side.order].flatten(), rows[side.padding].flatten())


class Part(NamedTuple):
    """Some texts of a group, some of their queries, and the keys that these see."""

    texts: slice
    heads: slice  # of these texts, of all B·H
    queries: slice
    keys: slice
    first: bool  # of those with these texts


@dataclass(frozen=True)
class Rules:
    """Who may look at whom within a text."""

    causal: bool
    window: int | None

    def parts(self, query: Tensor, key: Tensor, num_heads: int) -> Iterator[Part]:
        """Of a group's queries (B·H, Q, K) and keys (B·H, T, K); the last queries first, as they see the most keys."""
        (rows, num_queries, _), num_keys = query.shape, key.shape[1]
        height = min(num_queries, QUERIES_AT_ONCE[self.causal])
        step = max(1, SCORES_AT_ONCE // (query.element_size() * num_heads * height * num_keys))
        for text in range(0, rows // num_heads, step):
            texts = slice(text, min(text + step, rows // num_heads))
            heads = slice(num_heads * texts.start, num_heads * texts.stop)
            for begin in reversed(range(0, num_queries, height)):
                end = min(begin + height, num_queries)
                left, right = 0, end if self.causal else num_keys
                if self.window is not None:
                    left, right = max(0, begin - self.window + 1), min(right, end + self.window - 1)
                yield Part(texts, heads, slice(begin, end), slice(left, right), first=end == num_queries)

    def keep(self, query: Tensor, key: Tensor) -> bool:
        """Whether shares are kept for the way back: where they are as few as a feed-forward layer's hidden states."""
        return key.shape[1] / (2 if self.causal else 1) <= 4 * query.shape[2]


def attend(
    q: Tensor, k: Tensor, v: Tensor, *, queries: Layout, keys: Layout, causal: bool, window: int | None, bias: Bias
) -> Tensor:
    found = groups.regroup(queries, keys, SCORES_OF_A_CALL)
    masks = groups.masks(found, q, causal=causal, window=window, bias=bias)
    return _Attention.apply(q, k, v, queries, keys, found, Rules(causal, window), *masks)  # type: ignore[no-untyped-call]


@cache
def stay_uncompiled() -> None:
    """For whoever compiles a model: PyTorch's compiler has nothing to add to products, and would unroll all loops."""
    global attend
    attend = torch.compiler.disable(attend)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        queries: Layout,
        keys: Layout,
        found: groups.Groups,
        rules: Rules,
        *masks: Tensor | None,
    ) -> Tensor:
        heads = q.shape[1]
        own = _rows(queries, found.queries, ("query rows", id(keys), heads), heads)
        other = _rows(queries, found.keys, ("key rows", id(keys), heads, k.shape[1]), heads, heads // k.shape[1])
        q_rows = q.flatten(0, 1).index_select(0, own.index)  # (P·H, K)
        k_rows, v_rows = (x.flatten(0, 1).index_select(0, other.index) for x in (k, v))
        mixed = torch.empty_like(q_rows)
        kept: list[Tensor] = []
        learns = any(x.requires_grad for x in (q, k, v, *masks) if x is not None)
        for (out, query, key, value), mask in zip(
            _groups(found, heads, (mixed, q_rows), (k_rows, v_rows)), masks, strict=True
        ):
            keeps = learns and rules.keep(query, key)
            for part in rules.parts(query, key, heads):
                share = _shares(query, key, mask, part, rules, heads)
                torch.bmm(share, value[part.heads, part.keys], out=out[part.heads, part.queries])
                if keeps:
                    kept.append(share)
        ctx.rows, ctx.found, ctx.rules, ctx.heads, ctx.sizes = (own, other), found, rules, heads, (k.shape, len(kept))
        ctx.save_for_backward(q_rows, k_rows, v_rows, *masks, *kept)
        return mixed.index_select(0, own.order).view(q.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        (own, other), found, rules, heads = ctx.rows, ctx.found, ctx.rules, ctx.heads
        key_shape, num_kept = ctx.sizes
        q_rows, k_rows, v_rows, *more = ctx.saved_tensors
        masks, kept = more[: len(found.allowed)], iter(more[len(found.allowed) :])
        back = grads[0].flatten(0, 1).index_select(0, own.index).index_fill_(0, own.padding, 0)
        changes = tuple(torch.empty_like(x) for x in (q_rows, k_rows, v_rows))
        scale = q_rows.shape[1] ** -0.5
        mask_grads: list[Tensor | None] = []
        both = _groups(found, heads, (back, q_rows, changes[0]), (k_rows, v_rows, *changes[1:]))
        for (grad, query, query_grad, key, value, key_grad, value_grad), mask in zip(both, masks, strict=True):
            keeps = num_kept and rules.keep(query, key)
            wanted = mask is not None and mask.requires_grad
            mask_grad = torch.zeros_like(mask, dtype=torch.float32) if mask is not None and wanted else None
            for part in rules.parts(query, key, heads):
                share = next(kept) if keeps else _shares(query, key, mask, part, rules, heads)
                here, seen = (part.heads, part.queries), (part.heads, part.keys)
                g = grad[here]
                scores = torch._softmax_backward_data(torch.bmm(g, value[seen].mT), share, -1, share.dtype)
                if mask_grad is not None:
                    _add_to(mask_grad, scores, part, heads)
                torch.bmm(scores, key[seen], out=query_grad[here])
                if part.first and part.keys != slice(0, key.shape[1]):  # a window: not all of them are written below
                    value_grad[part.heads], key_grad[part.heads] = 0, 0
                if part.first:
                    torch.bmm(share.mT, g, out=value_grad[seen])
                    torch.bmm(scores.mT, query[here], out=key_grad[seen])
                else:
                    value_grad[seen] += torch.bmm(share.mT, g)
                    key_grad[seen] += torch.bmm(scores.mT, query[here])
            mask_grads.append(None if mask_grad is None or mask is None else mask_grad.to(mask.dtype))
        q_grad = changes[0].mul_(scale).index_select(0, own.order).view(grads[0].shape)
        k_grad, v_grad = (x.index_select(0, other.order) for x in (changes[1].mul_(scale), changes[2]))
        num_tokens, num_kv_heads, width = key_shape
        k_grad, v_grad = (x.view(num_tokens, num_kv_heads, -1, width) for x in (k_grad, v_grad))
        k_grad, v_grad = (x[:, :, 0] if num_kv_heads == heads else x.sum(2) for x in (k_grad, v_grad))
        return q_grad, k_grad, v_grad, None, None, None, None, *mask_grads


def _rows(layout: Layout, side: groups.Side, name: Any, num_heads: int, shared_by: int = 1) -> Rows:
    if name not in layout.scratch:
        layout.scratch[name] = Rows.of(side, num_heads, shared_by)
    found: Rows = layout.scratch[name]
    return found


def _groups(
    found: groups.Groups, heads: int, of_queries: tuple[Tensor, ...], of_keys: tuple[Tensor, ...]
) -> Iterator[tuple[Tensor, ...]]:
    """Of each group its part of all of these, first those with a row for each query: views (B·H, Q or T, K)."""
    parts = [
        [
            part.view(-1, length, x.shape[1])
            for part, length in zip(x.split([size * heads for size in side.sizes]), side.lengths, strict=True)
        ]
        for side, every in ((found.queries, of_queries), (found.keys, of_keys))
        for x in every
    ]
    return zip(*parts, strict=True)


def _shares(query: Tensor, key: Tensor, mask: Tensor | None, part: Part, rules: Rules, heads: int) -> Tensor:
    """How much each query looks at each key: (b·H, q, t), rows sum to 1."""
    q, k = query[part.heads, part.queries], key[part.heads, part.keys].mT
    scale = q.shape[2] ** -0.5
    if mask is not None:
        texts = slice(None) if len(mask) == 1 else part.texts
        rows = slice(None) if mask.shape[2] == 1 else part.queries
        added = mask[texts, :, rows, part.keys]
        added = added.expand(part.texts.stop - part.texts.start, heads, -1, -1).flatten(0, 1)
        scores = torch.baddbmm(added, q, k, alpha=scale)
    elif rules.causal:
        added = q.new_full((q.shape[1], k.shape[2]), float("-inf")).triu_(1 + part.queries.start - part.keys.start)
        scores = torch.baddbmm(added, q, k, alpha=scale)
    else:
        scores = torch.baddbmm(q.new_zeros(()), q, k, beta=0, alpha=scale)
    return torch.softmax(scores, -1, out=scores)


def _add_to(mask_grad: Tensor, scores: Tensor, part: Part, heads: int) -> None:
    """To the gradient of a mask (B or 1, H or 1, Q or 1, T) what each score has of it."""
    texts = slice(None) if len(mask_grad) == 1 else part.texts
    rows = slice(None) if mask_grad.shape[2] == 1 else part.queries
    piece = mask_grad[texts, :, rows, part.keys]
    piece += scores.unflatten(0, (-1, heads)).float().sum_to_size(piece.shape)
