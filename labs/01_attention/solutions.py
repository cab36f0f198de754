"""What learners hand in for lab 1: right ones written differently, and wrong ones with what a hint must say of them.

The mistakes of checks.py are wrong solutions too; these are written as a learner would, some with two mistakes at once,
of which a hint may say nothing, but nothing that is not so.
"""

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

NO_HINT = None


class Heads(nn.Module):
    """The usual way, with one thing left to a subclass."""

    def __init__(self, dim, num_heads):
        super().__init__()
        self.num_heads, self.width = num_heads, dim // num_heads
        for name in ("query", "key", "value", "out"):
            setattr(self, name, nn.Linear(dim, dim, bias=False))

    def heads(self, x):
        return x.reshape(x.shape[0], self.num_heads, self.width).permute(1, 0, 2)

    def forward(self, x):
        q, k, v = self.heads(self.query(x)), self.heads(self.key(x)), self.heads(self.value(x))
        return self.joined(F.scaled_dot_product_attention(q, k, v))

    def joined(self, mixed):
        return self.out(mixed.permute(1, 0, 2).reshape(mixed.shape[1], -1))


class OneByOne(Heads):
    def forward(self, x):
        q, k, v = self.query(x), self.key(x), self.value(x)
        found = []
        for head in range(self.num_heads):
            part = slice(head * self.width, (head + 1) * self.width)
            scores = q[:, part] @ k[:, part].T / math.sqrt(self.width)
            found.append(torch.softmax(scores, dim=1) @ v[:, part])
        return self.out(torch.cat(found, dim=1))


class Einsum(Heads):
    def forward(self, x):
        q, k, v = (layer(x).view(len(x), self.num_heads, -1) for layer in (self.query, self.key, self.value))
        shares = (torch.einsum("thk,shk->hts", q, k) / self.width**0.5).softmax(-1)
        return self.out(torch.einsum("hts,shk->thk", shares, v).flatten(1))


class TwoSlips(Heads):
    def forward(self, x):
        q, k, v = self.query(x), self.key(x), self.value(x)
        return (q @ k.T).softmax(0) @ v


class Renamed(nn.Module):
    def __init__(self, dim, num_heads):
        super().__init__()
        self.w_q, self.w_k, self.w_v, self.w_o = (nn.Linear(dim, dim, bias=False) for _ in range(4))

    def forward(self, x):
        return self.w_o(x)


class Biased(Heads):
    def __init__(self, dim, num_heads):
        super().__init__(dim, num_heads)
        self.query = nn.Linear(dim, dim)


class Narrow(Heads):
    def __init__(self, dim, num_heads):
        super().__init__(dim, num_heads)
        self.key = nn.Linear(dim, dim // num_heads, bias=False)


class Forgetful(Heads):
    def forward(self, x):
        self.joined(
            F.scaled_dot_product_attention(*(self.heads(part(x)) for part in (self.query, self.key, self.value)))
        )


class AddsItself(Heads):
    def forward(self, x):
        return x + super().forward(x)


class Averaged(Heads):
    def joined(self, mixed):
        return self.out(mixed.mean(0).repeat(1, self.num_heads))


class Misspelt(Heads):
    def forward(self, x):
        return self.output(x)


class WholeWidth(Heads):
    def forward(self, x):
        q, k, v = self.heads(self.query(x)), self.heads(self.key(x)), self.heads(self.value(x))
        scores = q @ k.mT / math.sqrt(x.size(-1))
        return self.joined(scores.softmax(-1) @ v)


class ReshapedHeads(Heads):
    def heads(self, x):
        return x.reshape(self.num_heads, -1, self.width)


class FlatJoin(Heads):
    def joined(self, mixed):
        return self.out(mixed.flatten().view(mixed.shape[1], -1))


class WithoutOut(Heads):
    def joined(self, mixed):
        return mixed.permute(1, 0, 2).flatten(1)


def looped_scores(q, k):
    return torch.stack([torch.stack([(a * b).sum() for b in k]) for a in q]) / math.sqrt(q.size(1))


def looped_softmax(scores):
    rows = []
    for row in scores:
        powers = torch.exp(row - torch.max(row))
        rows.append(powers / torch.sum(powers))
    return torch.stack(rows)


def in_place_softmax(scores):
    with torch.no_grad():
        scores -= scores.max(-1, keepdim=True).values
    powers = scores.exp()
    return powers / powers.sum(-1, keepdim=True)


def in_place_weights(scores, keep):
    scores.data[~keep] = float("-inf")
    return scores.softmax(-1)


def masked_by_a_constant(scores, keep):
    return torch.where(keep, scores, torch.tensor(-1e9)).softmax(-1)


def renormalised(scores, keep):
    powers = (scores - scores.max()).exp() * keep
    return powers / powers.sum(-1, keepdim=True)


def looped_sees(lengths):
    seen = torch.zeros(sum(lengths), sum(lengths), dtype=torch.bool)
    begin = 0
    for length in lengths:
        for row in range(length):
            seen[begin + row, begin : begin + row + 1] = True
        begin += length
    return seen


def begins_wrongly(lengths):
    seen = torch.zeros(sum(lengths), sum(lengths), dtype=torch.bool)
    for number, length in enumerate(lengths):
        begin = number * length
        seen[begin : begin + length, begin : begin + length] = True
    return seen.tril()


RIGHT = {
    "scores": [
        looped_scores,
        lambda q, k: torch.einsum("tk,sk->ts", q, k) * q.size(-1) ** -0.5,
        lambda q, k: torch.matmul(q / math.sqrt(k.shape[-1]), k.transpose(0, 1)),
    ],
    "softmax": [looped_softmax, lambda s: (s - s.logsumexp(-1, keepdim=True)).exp(), lambda s: F.softmax(s, dim=1)],
    "weights": [masked_by_a_constant, renormalised, lambda s, keep: torch.where(keep, s, -torch.inf).softmax(dim=1)],
    "attention": [
        lambda q, k, v, keep: F.scaled_dot_product_attention(q[None], k[None], v[None], keep[None])[0],
        lambda q, k, v, keep: renormalised(looped_scores(q, k), keep) @ v,
    ],
    "SelfAttention": [Heads, OneByOne, Einsum],
    "sees": [
        looped_sees,
        lambda lengths: torch.block_diag(*(torch.ones(n, n).tril() for n in lengths)).bool(),
        lambda lengths: torch.block_diag(*(torch.ones(n, n) for n in lengths)).tril() > 0,
    ],
}
WRONG = {
    "scores": [
        (lambda q, k: torch.einsum("tk,sk->ts", q, k), "divide by the root of K"),
        (lambda q, k: torch.matmul(q, k), "transposed"),
        (lambda q, k: q * k, "not q * k"),
        (lambda q, k: torch.einsum("tk,sk->st", q, k) / math.sqrt(q.shape[1]), "a row for each query"),
        (lambda q, k: q @ k.T / math.sqrt(len(q)), "how many queries"),
        (lambda q, k: q @ k.T / math.sqrt(len(k)), "how many keys"),
        (lambda q, k: (k @ q.T).softmax(0), NO_HINT),
        (lambda q, k: print((q @ k.T).shape), "return"),
        (lambda q, k: np.dot(q.detach(), k.detach().T) / math.sqrt(q.shape[1]), "a tensor is to come out"),
        (lambda q, k: (q @ k.T / q.shape[1] ** 0.5).detach(), "no gradient"),
        (lambda q, k: q @ k.T // q.shape[1] ** 0.5, NO_HINT),
        (lambda q, k: (q @ k.T / q.shape[1] ** 0.5).relu(), NO_HINT),
    ],
    "softmax": [
        (lambda s: torch.exp(s) / torch.exp(s).sum(dim=-1, keepdim=True), "infinite"),
        (lambda s: torch.exp(s) / torch.exp(s).sum(), NO_HINT),
        (lambda s: s.softmax(0), "sums over the queries"),
        (lambda s: F.softmax(s - s.max(), dim=-1) * 0.99, NO_HINT),
        (in_place_softmax, "another one afterwards"),
        (
            lambda s: torch.tensor(np.exp(s.detach().numpy() - s.detach().numpy().max(1, keepdims=True))),
            "divide by the sum",
        ),
        (lambda s: (s - s.max(-1, keepdim=True)[0]).exp() / s.exp().sum(-1, keepdim=True), "sum the same powers"),
        (lambda s: (s - s.max(-1).values).exp(), "a column"),
        (
            lambda s: (s - s.min(-1, keepdim=True).values) / (s - s.min(-1, keepdim=True).values).sum(-1, keepdim=True),
            NO_HINT,
        ),
        (lambda s: F.softmin(s, dim=-1), NO_HINT),
    ],
    "weights": [
        (in_place_weights, "another one afterwards"),
        (lambda s, keep: torch.where(keep, s, 0.0).softmax(-1), "exp(0) is 1"),
        (lambda s, keep: F.softmax(s, dim=-1).masked_fill(~keep, 0.0), "before it"),
        (lambda s, keep: torch.where(keep, -torch.inf, s).softmax(-1), "~keep"),
        (lambda s, keep: s[keep].softmax(-1), NO_HINT),
        (lambda s, keep: torch.where(keep, s, -torch.inf).softmax(0), "last dimension"),
        (lambda s, keep: s.masked_fill(not keep, -torch.inf).softmax(-1), NO_HINT),
        (lambda s, keep: torch.where(keep, s, -torch.inf), "still to come"),
        (lambda s, keep: s.masked_fill_(~keep, 0).softmax(-1), "exp(0) is 1"),
        (lambda s, keep: torch.where(keep, s, torch.nan).softmax(-1), "all is nan"),
    ],
    "attention": [
        (lambda q, k, v, keep: torch.where(keep, q @ k.T, -torch.inf).softmax(-1) @ v, "not divided"),
        (lambda q, k, v, keep: F.scaled_dot_product_attention(q, k, v), "keep is not used"),
        (lambda q, k, v, keep: F.scaled_dot_product_attention(q, k, v, ~keep), "other way round"),
        (
            lambda q, k, v, keep: (q @ k.T / math.sqrt(q.shape[1])).softmax(-1).masked_fill(~keep, 0) @ v,
            "after softmax",
        ),
        (lambda q, k, v, keep: v @ torch.where(keep, q @ k.T, -torch.inf).softmax(-1), "weights @ v"),
        (lambda q, k, v, keep: F.scaled_dot_product_attention(q, k, k, keep), "these are the keys"),
        (lambda q, k, v, keep: F.scaled_dot_product_attention(q, k, v, keep, dropout_p=0.5), NO_HINT),
        (lambda q, k, v, keep: F.scaled_dot_product_attention(q, k, v, is_causal=True), NO_HINT),
        (lambda q, k, v, keep: F.scaled_dot_product_attention(k, q, v, keep), NO_HINT),
        (lambda q, k, v, keep: (F.scaled_dot_product_attention(q, k, v, keep), keep), "a tensor is to come out"),
    ],
    "SelfAttention": [
        (TwoSlips, NO_HINT),
        (Renamed, "is to be called"),
        (Biased, "more than is asked for"),
        (Narrow, "is asked for"),
        (Forgetful, "return"),
        (AddsItself, "x is added here"),
        (Averaged, NO_HINT),
        (Misspelt, "no attribute 'output'"),
        (WholeWidth, "and not of D"),
        (ReshapedHeads, "the heads are mixed up"),
        (FlatJoin, "joined wrongly"),
        (WithoutOut, "out is not used"),
    ],
    "sees": [
        (begins_wrongly, NO_HINT),
        (lambda lengths: torch.ones(sum(lengths), sum(lengths)).tril().bool(), "of other texts"),
        (lambda lengths: torch.block_diag(*(torch.ones(n, n) for n in lengths)).bool(), "after them"),
        (lambda lengths: torch.block_diag(*(torch.ones(n, n).triu() for n in lengths)).bool(), "changed places"),
        (lambda lengths: torch.block_diag(*(torch.ones(n, n).tril() for n in lengths)), "True and False"),
        (
            lambda lengths: [[i >= j for j in range(sum(lengths))] for i in range(sum(lengths))],
            "a tensor is to come out",
        ),
        (lambda lengths: torch.block_diag(*(torch.ones(n, n).tril(-1) for n in lengths)).bool(), "itself, too"),
        (lambda lengths: torch.ones(max(lengths), max(lengths)).tril().bool(), NO_HINT),
        (lambda lengths: torch.zeros(sum(lengths), sum(lengths), dtype=torch.bool), NO_HINT),
        (lambda lengths: torch.block_diag(*(torch.ones(n, n).tril() for n in lengths)) == 0, "other way round"),
    ],
}
