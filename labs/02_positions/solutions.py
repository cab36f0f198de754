"""What learners hand in for lab 2: right ones written differently, and wrong ones with what must be said of them."""

import math

import torch
from torch import nn

from transformer_lab.models.layers.positions.relative import bucket

NO_HINT = None


def sinusoidal_by_loops(positions, dim):
    rows = []
    for position in positions.tolist():
        row = []
        for i in range(0, dim, 2):
            angle = position / 10000 ** (i / dim)
            row += [math.sin(angle), math.cos(angle)]
        rows.append(row)
    return torch.tensor(rows)


def sinusoidal_filled(positions, dim):
    found = torch.zeros(len(positions), dim)
    angles = positions[:, None] * torch.exp(torch.arange(0, dim, 2) * (-math.log(10000.0) / dim))
    found[:, 0::2], found[:, 1::2] = torch.sin(angles), torch.cos(angles)
    return found


def sinusoidal_by_channel(positions, dim):
    """Each channel has a frequency of its own: 2i is not halved."""
    angles = positions[:, None] / 10000 ** (torch.arange(dim) / dim)
    return torch.where(torch.arange(dim) % 2 == 0, angles.sin(), angles.cos())


class Table(nn.Module):
    def __init__(self, max_length, dim):
        super().__init__()
        self.table = nn.Embedding(max_length, dim)

    def forward(self, x, positions):
        return x + self.table.weight[positions]


class Gathered(Table):
    def forward(self, x, positions):
        return self.table(positions).add(x)


class AsParameter(nn.Module):
    def __init__(self, max_length, dim):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(max_length, dim))

    def forward(self, x, positions):
        return x + self.table[positions]


class OtherName(nn.Module):
    def __init__(self, max_length, dim):
        super().__init__()
        self.positions = nn.Embedding(max_length, dim)

    def forward(self, x, positions):
        return x + self.positions(positions)


class WrongWay(nn.Module):
    def __init__(self, max_length, dim):
        super().__init__()
        self.table = nn.Embedding(dim, max_length)

    def forward(self, x, positions):
        return x + self.table(positions)


class InPlace(Table):
    def forward(self, x, positions):
        x += self.table(positions)
        return x


class Returned(Table):
    def forward(self, x, positions):
        return self.table(positions)


class Counted(Table):
    def forward(self, x, positions):
        return x + self.table(torch.arange(len(x)))


class Silent(Table):
    def forward(self, x, positions):
        x + self.table(positions)


class Concatenated(Table):
    def forward(self, x, positions):
        return torch.cat([x, self.table(positions)], dim=-1)


def rotate_by_matrices(x, positions):
    width = x.shape[-1]
    found = torch.empty_like(x)
    for n, position in enumerate(positions.tolist()):
        for i in range(0, width, 2):
            angle = position * 10000 ** (-i / width)
            c, s = math.cos(angle), math.sin(angle)
            found[n, :, i : i + 2] = x[n, :, i : i + 2] @ torch.tensor([[c, s], [-s, c]])
    return found


def rotate_complex(x, positions):
    width = x.shape[-1]
    angles = positions[:, None] * 10000.0 ** (-torch.arange(0, width, 2) / width)
    turns = torch.polar(torch.ones_like(angles), angles)[:, None]
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * turns).flatten(-2)


def rotate_with_halves(x, positions):
    """As in Llama's code: channel i is a pair with i + K/2."""
    width = x.shape[-1]
    angles = positions[:, None] * 10000.0 ** (-torch.arange(0, width, 2) / width)
    angles = torch.cat([angles, angles], dim=-1)[:, None]
    first, second = x.chunk(2, dim=-1)
    return x * angles.cos() + torch.cat([-second, first], dim=-1) * angles.sin()


def rotate_without_the_minus(x, positions):
    width = x.shape[-1]
    angles = (positions[:, None] * 10000.0 ** (-torch.arange(0, width, 2) / width))[:, None]
    even, odd = x[..., 0::2], x[..., 1::2]
    pairs = [even * angles.cos() + odd * angles.sin(), odd * angles.cos() + even * angles.sin()]
    return torch.stack(pairs, dim=-1).flatten(-2)


def rotate_same_for_all(x, positions):
    angle = positions.float()[:, None, None]
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack([even * angle.cos() - odd * angle.sin(), odd * angle.cos() + even * angle.sin()], -1).flatten(-2)


def rows_of(table, length, offset):
    return torch.tensor([[bucket(offset(q, k), len(table), 20, False) for k in range(length)] for q in range(length)])


RIGHT = {
    "places": [
        lambda lengths: torch.cat([torch.arange(length) for length in lengths]),
        lambda lengths: torch.tensor([place for length in lengths for place in range(length)]),
    ],
    "sinusoidal": [sinusoidal_by_loops, sinusoidal_filled],
    "LearnedPositions": [Table, Gathered],
    "rotate": [rotate_by_matrices, rotate_complex],
    "relative": [
        lambda table, length: table.T[:, rows_of(table, length, lambda q, k: k - q)],
        lambda table, length: table[rows_of(table, length, lambda q, k: k - q)].movedim(-1, 0),
    ],
}
WRONG = {
    "places": [
        (lambda lengths: torch.arange(sum(lengths)), "each text begins anew"),
        (lambda lengths: torch.cat([torch.arange(1, length + 1) for length in lengths]), "the first place is 0"),
        (lambda lengths: torch.cat([torch.arange(length - 1) for length in lengths]), NO_HINT),
        (lambda lengths: [torch.arange(length) for length in lengths], "a tensor is to come out"),
        (lambda lengths: torch.arange(max(lengths)), NO_HINT),
        (lambda lengths: torch.stack([torch.arange(length) for length in lengths]), "RuntimeError"),
        (lambda lengths: torch.cat([torch.linspace(0, n - 1, n) for n in lengths]), "fractions"),
        (lambda lengths: torch.arange(sum(lengths)) % lengths[0], NO_HINT),
        (lambda lengths: torch.cat([torch.full((n,), i) for i, n in enumerate(lengths)]), "these are the texts"),
    ],
    "sinusoidal": [
        (sinusoidal_by_channel, "the sine beside it"),
        (
            lambda p, dim: torch.cat([sinusoidal_filled(p, dim)[:, ::2], sinusoidal_filled(p, dim)[:, 1::2]], 1),
            "take turns",
        ),
        (lambda p, dim: sinusoidal_filled(torch.arange(len(p)), dim), "use them"),
        (lambda p, dim: sinusoidal_filled(p + 1, dim), "one too far"),
        (lambda p, dim: torch.sin(p[:, None] / 10000 ** (torch.arange(dim) / dim)), NO_HINT),
        (lambda p, dim: sinusoidal_filled(p, dim).flip(1), NO_HINT),
        (lambda p, dim: sinusoidal_filled(p, dim)[None], "it makes"),
        (lambda p, dim: torch.sin(p / 10000 ** (torch.arange(0, dim, 2) / dim)), NO_HINT),
        (
            lambda p, dim: (p[:, None] * 10000.0 ** (-torch.arange(0, dim, 2) / dim)).sin().repeat_interleave(2, 1),
            "sines alone",
        ),
    ],
    "LearnedPositions": [
        (AsParameter, "is to be called"),
        (OtherName, "is to be called"),
        (WrongWay, "is asked for"),
        (InPlace, "another one afterwards"),
        (Returned, "positions are added to it"),
        (Counted, "not the first ones"),
        (Silent, "return"),
        (Concatenated, "it makes"),
    ],
    "rotate": [
        (rotate_with_halves, "pairs the first half"),
        (rotate_without_the_minus, "one minus"),
        (rotate_same_for_all, NO_HINT),
        (lambda x, p: rotate_complex(x, -p), "the other way round"),
        (lambda x, p: rotate_complex(x, torch.arange(len(x))), "use them"),
        (lambda x, p: rotate_complex(x.flatten(1)[:, None], p).view(x.shape), "begin anew in each head"),
        (lambda x, p: rotate_complex(x, p + 1), NO_HINT),
        (lambda x, p: rotate_complex(x.transpose(0, 1), p).transpose(0, 1), "RuntimeError"),
        (lambda x, p: x * p[:, None, None].cos() + x * p[:, None, None].sin(), NO_HINT),
        (lambda x, p: x, "not turned at all"),
    ],
    "relative": [
        (lambda table, length: table[rows_of(table, length, lambda q, k: q - k)].permute(2, 0, 1), "changed places"),
        (lambda table, length: table[rows_of(table, length, lambda q, k: k - q)], "heads come first"),
        (lambda table, length: table[rows_of(table, length, lambda q, k: k - q)].permute(2, 1, 0), "changed places"),
        (lambda table, length: table[rows_of(table, length, lambda q, k: abs(k - q))].permute(2, 0, 1), "has a sign"),
        (
            lambda table, length: table[(torch.arange(length) - torch.arange(length)[:, None]) % len(table)].permute(
                2, 0, 1
            ),
            NO_HINT,
        ),
        (lambda table, length: table[rows_of(table, length, lambda q, k: k - q)].mean(-1), "not their mean"),
        (lambda table, length: rows_of(table, length, lambda q, k: k - q), NO_HINT),
        (lambda table, length: table[torch.arange(length) - torch.arange(length)[:, None]].permute(2, 0, 1), NO_HINT),
    ],
}
