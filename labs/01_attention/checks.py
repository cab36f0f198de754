"""What is to be written in lab 1, what the framework makes of the same inputs, and what usual mistakes make of them.

**T** tokens that look, **S** tokens that are looked at, **K** width of queries and keys, **V** of values, **D** of a
model, **H** heads, **N** tokens of a packed batch.
"""

import torch
from torch import Tensor, nn

import transformer_lab as tl
from transformer_lab.course.checking import Draw, Exercise, filled
from transformer_lab.models.layers.kernels.reference import visible

NO = float("-inf")


def framework_weights(scores: Tensor, keep: Tensor) -> Tensor:
    return scores.masked_fill(~keep, NO).softmax(-1)


def framework_attention(q: Tensor, k: Tensor, v: Tensor, keep: Tensor) -> Tensor:
    return nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=keep)


def framework_sees(lengths: list[int]) -> Tensor:
    layout = tl.Layout.of(lengths)
    same = layout.sequence[:, None] == layout.sequence
    return visible(layout.positions, layout.positions, causal=True, window=None) & same


class FrameworkAttention(tl.Attention):
    """The framework's layer on one text: (T, D) -> (T, D)."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__(dim=dim, num_heads=num_heads)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x, tl.Layout.of([len(x)]))


# --- inputs ---


def two_texts(draw: Draw) -> tuple[Tensor, Tensor]:
    queries, keys, width = draw.sizes(3, 5)  # of a width of 4, the half is the root
    return draw.normal(queries, width), draw.normal(keys, width)


def large_scores(draw: Draw) -> tuple[Tensor]:
    queries, keys = draw.sizes(2)
    scores = 3 * draw.normal(queries, keys)
    first, second = draw.sample(range(queries), 2)
    scores[first] += 1000  # a row that overflows
    scores[second, 0] += 1000  # and one that does so but for its largest
    return (scores,)


def scores_and_keep(draw: Draw) -> tuple[Tensor, Tensor]:
    queries, keys = draw.sizes(2)
    return draw.normal(queries, keys), some_kept(draw, queries, keys)


def some_kept(draw: Draw, queries: int, keys: int) -> Tensor:
    """In each row and each column something is kept, and something is not."""
    keep = draw.normal(queries, keys) > 0
    longest = max(queries, keys)
    rows, columns = torch.arange(longest) % queries, torch.arange(longest) % keys
    keep[rows, columns], keep[rows, (columns + 1) % keys] = True, False
    return keep


def one_head(draw: Draw) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    queries, keys, width, values = draw.sizes(4)
    keep = some_kept(draw, queries, keys)
    return draw.normal(queries, width), draw.normal(keys, width), draw.normal(keys, values), keep


def a_layer(draw: Draw) -> tuple[Tensor, int, dict[str, Tensor]]:
    heads, width, length = draw.sample([2, 3, 4], 1)[0], draw.choice([5, 6]), draw.choice([7, 9, 11])
    dim = heads * width
    layer = tl.Attention(dim=dim, num_heads=heads)
    state = {name: draw.normal(*weight.shape) * dim**-0.5 for name, weight in layer.state_dict().items()}
    return 2 * draw.normal(length, dim), heads, state


def some_lengths(draw: Draw) -> tuple[list[int]]:
    lengths = draw.sizes(draw.choice([2, 3]), 1, 7)
    return ([*lengths, lengths[-1]],)  # two of one length, side by side


# --- mistakes ---


def one_softmax(scores: Tensor, shift: Tensor, dim: int | None = -1) -> Tensor:
    power = (scores - shift).exp()
    return power / (power.sum() if dim is None else power.sum(dim, keepdim=True))


def mixed(q: Tensor, k: Tensor, v: Tensor, keep: Tensor, scale: float | None = None, dim: int = -1) -> Tensor:
    scores = q @ k.T * (q.shape[1] ** -0.5 if scale is None else scale)
    return scores.masked_fill(~keep, NO).softmax(dim) @ v


class Wrong(nn.Module):
    """A layer that is right, but for what a subclass does otherwise."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim, bias=False) for _ in range(4))

    def split(self, x: Tensor) -> Tensor:
        return x.view(len(x), self.num_heads, -1).transpose(0, 1)  # (H, T, K)

    def scale(self, q: Tensor) -> float:
        return q.shape[-1] ** -0.5

    def join(self, mixed: Tensor) -> Tensor:
        return mixed.transpose(0, 1).flatten(1)  # (T, D)

    def look(self, scores: Tensor) -> Tensor:
        return scores.softmax(-1)

    def last(self, joined: Tensor) -> Tensor:
        return self.out(joined)

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.query(x), self.key(x), self.value(x)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = map(self.split, self.parts(x))
        return self.last(self.join(self.look(q @ k.transpose(1, 2) * self.scale(q)) @ v))


class MixedHeads(Wrong):
    def split(self, x: Tensor) -> Tensor:
        return x.view(self.num_heads, len(x), -1)


class MixedHeadsTwice(MixedHeads):
    def join(self, mixed: Tensor) -> Tensor:
        return mixed.reshape(mixed.shape[1], -1)


class JoinedWrongly(Wrong):
    def join(self, mixed: Tensor) -> Tensor:
        return mixed.reshape(mixed.shape[1], -1)


class SplitLast(Wrong):
    def split(self, x: Tensor) -> Tensor:
        return x.view(len(x), -1, self.num_heads).permute(2, 0, 1)


class WidthOfAll(Wrong):
    def scale(self, q: Tensor) -> float:
        return self.query.in_features**-0.5


class Unscaled(Wrong):
    def scale(self, q: Tensor) -> float:
        return 1.0


class NoOut(Wrong):
    def last(self, joined: Tensor) -> Tensor:
        return joined


class WithinAToken(Wrong):
    def split(self, x: Tensor) -> Tensor:
        return x.view(len(x), self.num_heads, -1)

    def join(self, mixed: Tensor) -> Tensor:
        return mixed.flatten(1)


class JoinedByWidth(Wrong):
    def join(self, mixed: Tensor) -> Tensor:
        return mixed.permute(1, 2, 0).flatten(1)


class OneHead(Wrong):
    def split(self, x: Tensor) -> Tensor:
        return x[None]


class OverQueries(Wrong):
    def look(self, scores: Tensor) -> Tensor:
        return scores.softmax(1)


class OverHeads(Wrong):
    def look(self, scores: Tensor) -> Tensor:
        return scores.softmax(0)


class Causal(Wrong):
    def look(self, scores: Tensor) -> Tensor:
        return scores.masked_fill(~torch.ones_like(scores[0], dtype=torch.bool).tril(), NO).softmax(-1)


class KeysAsValues(Wrong):
    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.query(x), self.key(x), self.key(x)


class TextAsValues(Wrong):
    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.query(x), self.key(x), x


class Adds(Wrong):
    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class Swapped(Wrong):
    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.key(x), self.query(x), self.value(x)


def other_sees(lengths: list[int], *, same: bool = True, mask: str = "tril", diagonal: int = 0) -> Tensor:
    text = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    seen = torch.ones(len(text), len(text), dtype=torch.bool)
    if mask:
        seen = getattr(seen, mask)(diagonal)
    return seen & (text[:, None] == text) if same else seen


EXERCISES = [
    Exercise(
        name="scores",
        shape="(T, S)",
        draw=two_texts,
        right=lambda q, k: q @ k.T * q.shape[1] ** -0.5,
        mistakes={
            "divide by the root of K, the width of a query: q.shape[-1] ** 0.5": lambda q, k: q @ k.T,
            "divide by the root of K, and not by K itself": lambda q, k: q @ k.T / q.shape[1],
            "K ** 1 / 2 is half of K, as powers come before division: ** 0.5": lambda q, k: q @ k.T / (q.shape[1] / 2),
            "divide, not multiply, by the root of K": lambda q, k: q @ k.T * q.shape[1] ** 0.5,
            "K is the width of a query, q.shape[-1]; this is the root of how many queries there are": (
                lambda q, k: q @ k.T / q.shape[0] ** 0.5
            ),
            "K is the width of a key, k.shape[-1]; this is the root of how many keys there are": (
                lambda q, k: q @ k.T / k.shape[0] ** 0.5
            ),
            "a row for each query, a column for each key: q @ k.T, and not k @ q.T": (
                lambda q, k: k @ q.T * q.shape[1] ** -0.5
            ),
            "k is to be transposed: q is (T, K) and k is (S, K)": lambda q, k: q @ k,
            "each query with each key is a product of matrices: q @ k.T, and not q * k": lambda q, k: q * k,
            "scores are what softmax is given; it comes in the next exercise": (
                lambda q, k: (q @ k.T * q.shape[1] ** -0.5).softmax(-1)
            ),
            "a score is the dot product itself, and not the cosine: the lengths of the vectors count": (
                lambda q, k: nn.functional.normalize(q, dim=-1) @ nn.functional.normalize(k, dim=-1).T
            ),
        },
    ),
    Exercise(
        name="softmax",
        shape="(T, S)",
        draw=large_scores,
        right=lambda scores: scores.softmax(-1),
        mistakes={
            "exp of a large number is infinite: take the largest score of each row away first": (
                lambda scores: one_softmax(scores, torch.tensor(0.0))
            ),
            "take away the largest of each row, not of all: exp of what is far below it is 0 for a whole row": (
                lambda scores: one_softmax(scores, scores.max())
            ),
            "each row is to sum to 1, so sum over the last dimension: this one sums over the queries": (
                lambda scores: one_softmax(scores, scores.max(0, keepdim=True).values, 0)
            ),
            "the sum of the row, the last dimension, and not of the column": (
                lambda scores: (power := (scores - scores.max(-1, keepdim=True).values).exp()) / power.sum(0)
            ),
            "take away the largest score of each row, and not its mean": (
                lambda scores: one_softmax(scores, scores.mean(-1, keepdim=True))
            ),
            "each row is to sum to 1: divide by the sum of the row, and not of all scores": (
                lambda scores: one_softmax(scores, scores.max(-1, keepdim=True).values, None)
            ),
            "the largest of a row, and its sum, are still to be a column: keepdim=True": (
                lambda scores: (power := (scores - scores.max(-1, keepdim=True).values).exp()) / power.sum(-1)
            ),
            "max over a dimension gives two things, and .values are the numbers": (
                lambda scores: scores - scores.max(-1, keepdim=True)  # type: ignore[operator]
            ),
            "the sum is one of powers from which nothing was taken away: sum the same powers": (
                lambda scores: (scores - scores.max(-1, keepdim=True).values).exp() / scores.exp().sum(-1, keepdim=True)
            ),
            "divide by the sum of the row": lambda scores: (scores - scores.max(-1, keepdim=True).values).exp(),
            "exp comes first: this is the score itself by the sum": (
                lambda scores: scores / scores.sum(-1, keepdim=True)
            ),
            "this is the logarithm of it": lambda scores: scores.log_softmax(-1),
            "each score by itself: what a sigmoid gives does not sum to 1": lambda scores: scores.sigmoid(),
        },
    ),
    Exercise(
        name="weights",
        shape="(T, S)",
        draw=scores_and_keep,
        right=framework_weights,
        mistakes={
            "keep is True where a token may be looked at: the others are to be masked, ~keep": (
                lambda scores, keep: scores.masked_fill(keep, NO).softmax(-1)
            ),
            "masked after softmax, so rows do not sum to 1: mask the scores, before it": (
                lambda scores, keep: scores.softmax(-1) * keep
            ),
            "a score of 0 is not nothing, exp(0) is 1: use float('-inf')": (
                lambda scores, keep: (scores * keep).softmax(-1)
            ),
            "exp of nothing is minus infinity, float('-inf'), and this is a small number": (
                lambda scores, keep: scores.masked_fill(~keep, -1.0).softmax(-1)
            ),
            "keep is not used": lambda scores, keep: scores.softmax(-1),
            "True is 1 and False is 0: this adds 1 to what is kept": lambda scores, keep: (scores + keep).softmax(-1),
            "softmax over the keys, the last dimension: each query shares out its own 1": (
                lambda scores, keep: scores.masked_fill(~keep, NO).softmax(0)
            ),
            "softmax is still to come": lambda scores, keep: scores.masked_fill(~keep, NO),
            "all is nan, as infinity times 0 is, and infinity less infinity: masked_fill with minus infinity": (
                lambda scores, keep: (scores + ~keep * NO).softmax(-1)
            ),
        },
    ),
    Exercise(
        name="attention",
        shape="(T, V)",
        draw=one_head,
        right=framework_attention,
        mistakes={
            "the scores are not divided by the root of K": lambda q, k, v, keep: mixed(q, k, v, keep, 1.0),
            "divide by the root of K, and not by K itself": lambda q, k, v, keep: mixed(q, k, v, keep, 1 / q.shape[1]),
            "a score of 0 is not nothing, exp(0) is 1: use float('-inf')": (
                lambda q, k, v, keep: (q @ k.T * q.shape[1] ** -0.5 * keep).softmax(-1) @ v
            ),
            "K is the width of a query; this is the root of a value's width": (
                lambda q, k, v, keep: mixed(q, k, v, keep, v.shape[1] ** -0.5)
            ),
            "K is the width of a query; this is the root of how many keys there are": (
                lambda q, k, v, keep: mixed(q, k, v, keep, k.shape[0] ** -0.5)
            ),
            "keep the other way round: False is what must not be looked at": (
                lambda q, k, v, keep: mixed(q, k, v, ~keep)
            ),
            "keep is not used": lambda q, k, v, keep: mixed(q, k, v, torch.ones_like(keep)),
            "softmax over the keys, the last dimension of the scores": (
                lambda q, k, v, keep: mixed(q, k, v, keep, dim=0)
            ),
            "these are the weights: what they are for is to mix the values, weights @ v": (
                lambda q, k, v, keep: framework_weights(q @ k.T * q.shape[1] ** -0.5, keep)
            ),
            "the scores themselves mix the values: softmax is missing": (
                lambda q, k, v, keep: (q @ k.T * q.shape[1] ** -0.5 * keep) @ v
            ),
            "weights @ v, as each row of the weights mixes the rows of v": (
                lambda q, k, v, keep: v @ framework_weights(q @ k.T * q.shape[1] ** -0.5, keep)
            ),
            "queries and keys have changed places": lambda q, k, v, keep: mixed(k, q, v, keep),
            "the values are mixed, v; these are the keys": lambda q, k, v, keep: mixed(q, k, k, keep),
            "masked after softmax: the rows do not sum to 1": (
                lambda q, k, v, keep: ((q @ k.T * q.shape[1] ** -0.5).softmax(-1) * keep) @ v
            ),
        },
    ),
    Exercise(
        name="SelfAttention",
        shape="(T, D)",
        draw=a_layer,
        right=FrameworkAttention,
        ask=lambda written, x, num_heads, state: filled(written(x.shape[1], num_heads), state)(x),
        mistakes={
            "the heads are mixed up: view as (T, H, K) first, then bring H to the front": MixedHeads,
            "the heads are mixed up on the way in and out: view as (T, H, K) first, then bring H to the front": (
                MixedHeadsTwice
            ),
            "what the heads found is joined wrongly: bring T to the front again before (T, H, K) becomes (T, D)": (
                JoinedWrongly
            ),
            "a head is K numbers that stand side by side: view as (T, H, K), not (T, K, H)": SplitLast,
            "the heads of a token look at each other here: bring H to the front, so that tokens do": WithinAToken,
            "the K numbers of a head stand side by side when heads are joined: (T, H, K), not (T, K, H)": JoinedByWidth,
            "divide by the root of K, the width of one head, and not of D": WidthOfAll,
            "the scores are not divided by the root of K": Unscaled,
            "out is not used: it comes last": NoOut,
            "there is one head as wide as all: split queries, keys and values": OneHead,
            "softmax over the keys, the last dimension": OverQueries,
            "softmax over the keys, and not over the heads": OverHeads,
            "each token sees all of the text here, those after it too": Causal,
            "the values are self.value(x), and not the keys": KeysAsValues,
            "the values are self.value(x), and not x itself": TextAsValues,
            "queries and keys have changed places": Swapped,
            "x is added here: that is done around the layer, by the block (lab 4)": Adds,
        },
    ),
    Exercise(
        name="sees",
        shape="(N, N)",
        draw=some_lengths,
        right=framework_sees,
        mistakes={
            "tokens see those of other texts: only where both are of the same text": (
                lambda lengths: other_sees(lengths, same=False)
            ),
            "tokens see those after them: only where the key does not come later": (
                lambda lengths: other_sees(lengths, mask="")
            ),
            "the future and the past have changed places: rows are queries": (
                lambda lengths: other_sees(lengths, mask="triu")
            ),
            "a token sees itself, too": lambda lengths: other_sees(lengths, diagonal=-1),
            "a token sees itself, and none after it": lambda lengths: other_sees(lengths, diagonal=1),
            "True where a token may be looked at: this is the other way round": lambda lengths: (
                ~framework_sees(lengths)
            ),
            "True and False are asked for, as .bool() or a comparison gives them": (
                lambda lengths: framework_sees(lengths).float()
            ),
            "one row for each token of all texts: this is one for each text": (
                lambda lengths: torch.eye(len(lengths), dtype=torch.bool)
            ),
            "all texts here are as long as the first: use each text's own length": (
                lambda lengths: framework_sees([lengths[0]] * len(lengths))
            ),
        },
    ),
]
