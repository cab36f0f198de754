"""What is to be written in lab 2, what the framework makes of the same inputs, and what usual mistakes make of them.

**N** tokens of a packed batch, **T** of a text, **D** width of a model, **H** heads, **K** width of a head.
"""

from functools import partial

import torch
from torch import Tensor, nn

import transformer_lab as tl
from transformer_lab.course.checking import Draw, Exercise, filled
from transformer_lab.models.layers.positions.learned import Learned
from transformer_lab.models.layers.positions.relative import RelativeBuckets, bucket
from transformer_lab.models.layers.positions.rotary import Rotary
from transformer_lab.models.layers.positions.sinusoidal import Sinusoidal


def framework_places(lengths: list[int]) -> Tensor:
    return tl.Layout.of(lengths).positions


def framework_sinusoidal(positions: Tensor, dim: int) -> Tensor:
    return Sinusoidal(dim=dim, num_heads=1, causal=True, scale=1.0).embed(torch.zeros(len(positions), dim), positions)


class FrameworkLearned(Learned):
    def __init__(self, max_length: int, dim: int) -> None:
        super().__init__(dim=dim, num_heads=1, causal=True, max_length=max_length)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        return self.embed(x, positions)


def framework_rotate(x: Tensor, positions: Tensor) -> Tensor:
    return Rotary(dim=x[0].numel(), num_heads=x.shape[1], causal=True).rotate(x, positions)


def framework_relative(table: Tensor, length: int) -> Tensor:
    scheme = RelativeBuckets(dim=8, num_heads=table.shape[1], causal=False, num_buckets=len(table), max_distance=20)
    scheme.table.weight = nn.Parameter(table, requires_grad=False)
    positions = torch.arange(length)
    return scheme.bias(positions, positions)


# --- inputs ---


def some_lengths(draw: Draw) -> tuple[list[int]]:
    return (draw.sizes(draw.choice([3, 4]), 2, 9),)


def places_and_width(draw: Draw) -> tuple[Tensor, int]:
    count = draw.choice([5, 7, 9])
    return torch.tensor(draw.sample(range(1, 300), count)), draw.choice([8, 12, 16])


def embedded(draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
    count, dim, most = draw.choice([5, 7]), draw.choice([8, 10]), draw.choice([20, 30])
    places = torch.tensor(draw.sample(range(1, most), count))
    return draw.normal(count, dim), places, draw.normal(most, dim)


def turned(draw: Draw) -> tuple[Tensor, Tensor]:
    count, heads, width = draw.choice([5, 7, 9]), draw.choice([2, 3]), draw.choice([6, 8, 12])
    return draw.normal(count, heads, width), torch.tensor(draw.sample(range(1, 60), count))


def a_table(draw: Draw) -> tuple[Tensor, int]:
    return draw.normal(16, draw.choice([2, 3, 5])), draw.choice([9, 11, 30])


# --- mistakes ---


def waves(
    positions: Tensor, dim: int, *, base: float = 10_000.0, steps: int = 2, halves: bool = False, swap: bool = False
) -> Tensor:
    rates = base ** (-torch.arange(0, dim, 2) * (steps / 2) / dim)
    turns = positions[:, None].float() * rates
    parts = [turns.cos(), turns.sin()] if swap else [turns.sin(), turns.cos()]
    return torch.cat(parts, dim=1) if halves else torch.stack(parts, dim=-1).flatten(1)


def own_frequencies(positions: Tensor, dim: int) -> Tensor:
    angles = positions[:, None] * 10_000.0 ** (-torch.arange(dim) / dim)
    return torch.where(torch.arange(dim) % 2 == 0, angles.sin(), angles.cos())


def no_places(positions: Tensor, dim: int) -> Tensor:
    return waves(torch.arange(len(positions)), dim)


def turn(
    x: Tensor,
    positions: Tensor,
    *,
    halves: bool = False,
    back: bool = False,
    sign: bool = True,
    base: float = 10_000.0,
    whole: bool = False,
    together: bool = True,
) -> Tensor:
    width = x.shape[-1]
    rates = base ** (-torch.arange(0, width, 2) / (x[0].numel() if whole else width))
    angles = positions[:, None, None].float() * rates * (-1 if back else 1)  # (N, 1, K/2)
    first, second = x.chunk(2, dim=-1) if halves else (x[..., ::2], x[..., 1::2])
    one = first * angles.cos() - second * angles.sin() * (1 if sign else -1)
    other = second * angles.cos() + first * angles.sin()
    if halves or not together:
        return torch.cat([one, other], dim=-1)
    return torch.stack([one, other], dim=-1).flatten(-2)


def added(x: Tensor, positions: Tensor) -> Tensor:
    return x + waves(positions, x.shape[-1])[:, None]


def by_order(x: Tensor, positions: Tensor) -> Tensor:
    return turn(x, torch.arange(len(x)))


class OtherLearned(nn.Module):
    """Learned positions, with one thing left to a subclass."""

    def __init__(self, max_length: int, dim: int) -> None:
        super().__init__()
        self.table = nn.Embedding(max_length, dim)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        return x + self.table(positions)


class InsteadOfWords(OtherLearned):
    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        return self.table(positions)


class InOrder(OtherLearned):
    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        return x + self.table.weight[: len(x)]


class Multiplied(OtherLearned):
    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        return x * self.table(positions)


class Unused(OtherLearned):
    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        return x


class FromOne(OtherLearned):
    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        return x + self.table(positions - 1)


class Scaled(OtherLearned):
    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        return x * x.shape[-1] ** 0.5 + self.table(positions)


class AllOfTable(OtherLearned):
    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        return x + self.table.weight


class Numbers(OtherLearned):
    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        return x + positions[:, None]


def biased(table: Tensor, length: int, offset, *, heads_last: bool = False, causal: bool = False) -> Tensor:  # type: ignore[no-untyped-def]
    rows = [[bucket(offset(query, key), len(table), 20, causal) for key in range(length)] for query in range(length)]
    found = table[torch.tensor(rows)]  # (T, T, H)
    return found if heads_last else found.permute(2, 0, 1)


def mean_of_heads(table: Tensor, length: int) -> Tensor:
    return framework_relative(table, length).mean(0)


EXERCISES = [
    Exercise(
        name="places",
        shape="(N,)",
        draw=some_lengths,
        right=framework_places,
        mistakes={
            "each text begins anew, at 0: this counts through all of the batch": lambda lengths: torch.arange(
                sum(lengths)
            ),
            "the first place is 0": lambda lengths: framework_places(lengths) + 1,
            "these are the texts that tokens are of; their places are asked for": (
                lambda lengths: torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
            ),
            "these are the places where texts begin": lambda lengths: torch.tensor([0, *lengths[:-1]]).cumsum(0),
            "one place too many for each text: 0 to its length minus 1": (
                lambda lengths: torch.cat([torch.arange(length + 1) for length in lengths])
            ),
            "the places of a text rise": lambda lengths: torch.cat([torch.arange(n).flip(0) for n in lengths]),
            "these are fractions, and places are whole numbers": (lambda lengths: framework_places(lengths).float()),
            "all texts here are as long as the first": lambda lengths: framework_places([lengths[0]] * len(lengths)),
        },
    ),
    Exercise(
        name="sinusoidal",
        shape="(N, D)",
        draw=places_and_width,
        right=framework_sinusoidal,
        mistakes={
            "sine and cosine take turns, channel by channel: this is all sines, then all cosines": (
                partial(waves, halves=True)
            ),
            "the sine comes first, in channel 0": partial(waves, swap=True),
            "the sine comes first, and they take turns": partial(waves, swap=True, halves=True),
            "frequencies fall with i = 0, 2, 4 … by D: these fall half as fast": partial(waves, steps=1),
            "frequencies fall with i = 0, 2, 4 … by D: these fall twice as fast": partial(waves, steps=4),
            "the base is 10,000": partial(waves, base=1000.0),
            "the exponent of 10,000 is minus i / D: these frequencies rise": partial(waves, base=1 / 10_000.0),
            "the positions that are given are not 0, 1, 2 …: use them": no_places,
            "the positions are to be taken as they are: this is one too far": lambda positions, dim: waves(
                positions + 1, dim
            ),
            "the cosine of a pair has the frequency of the sine beside it": own_frequencies,
            "these are the sines alone, in all channels": (
                lambda positions, dim: waves(positions, dim)[:, ::2].repeat_interleave(2, dim=1)
            ),
        },
    ),
    Exercise(
        name="LearnedPositions",
        shape="(N, D)",
        draw=embedded,
        right=FrameworkLearned,
        ask=lambda written, x, places, table: filled(written(*table.shape), {"table.weight": table})(x, places),
        mistakes={
            "x is what the words are: positions are added to it": InsteadOfWords,
            "the rows of the given positions, and not the first ones in their order": InOrder,
            "positions are added, not multiplied": Multiplied,
            "the table is not used": Unused,
            "the first position is 0, and so is the first row": FromOne,
            "x is taken as it is, and not scaled": Scaled,
            "the rows of the given positions, and not the whole table": AllOfTable,
            "the table's rows are added, and not the numbers of the positions": Numbers,
        },
    ),
    Exercise(
        name="rotate",
        shape="(N, H, K)",
        draw=turned,
        right=framework_rotate,
        mistakes={
            "neighbours are a pair, channels 0 and 1: this pairs the first half with the second": partial(
                turn, halves=True
            ),
            "this turns the other way round: x0 cos - x1 sin comes first": partial(turn, back=True),
            "a turn has one minus: x0 cos - x1 sin, and x1 cos + x0 sin": partial(turn, sign=False),
            "each head turns by frequencies of its own width K, and not of all heads together": partial(
                turn, whole=True
            ),
            "rates begin anew in each head: these fall on through all heads": (
                lambda x, positions: turn(x.flatten(1)[:, None], positions).view(x.shape)
            ),
            "the base is 10,000, and pair j has the rate 10,000 ** (-2 j / K): these fall half as fast": partial(
                turn, base=100.0
            ),
            "pair j has the rate 10,000 ** (-2 j / K): these fall twice as fast": partial(turn, base=1e8),
            "10,000 has a negative exponent, -2 j / K: these rates rise": partial(turn, base=1e-4),
            "each pair goes back to where it was, side by side: this is all first ones, then all second ones": partial(
                turn, together=False
            ),
            "nothing is added: a pair is turned": added,
            "the positions that are given are not 0, 1, 2 …: use them": by_order,
            "it is not turned at all": lambda x, positions: x,
        },
    ),
    Exercise(
        name="relative",
        shape="(H, T, T)",
        draw=a_table,
        right=framework_relative,
        mistakes={
            "the distance is key minus query, and rows are queries: here they have changed places": partial(
                biased, offset=lambda q, k: q - k
            ),
            "before and after are not the same: the distance has a sign": partial(
                biased, offset=lambda q, k: abs(k - q)
            ),
            "heads come first: (T, T, H) is to become (H, T, T)": partial(
                biased, offset=lambda q, k: k - q, heads_last=True
            ),
            "the distance counts, and not the place of the key": partial(biased, offset=lambda q, k: k),
            "the distance counts, and not the place of the query": partial(biased, offset=lambda q, k: q),
            "each head has its own: not their mean": mean_of_heads,
            "these buckets are those of a decoder, which sees nothing ahead": partial(
                biased, offset=lambda q, k: k - q, causal=True
            ),
            "distances of 0 have a bucket, too: a token is 0 away from itself": partial(
                biased, offset=lambda q, k: k - q + 1
            ),
        },
    ),
]
