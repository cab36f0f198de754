"""Keys and values that a decoder need not compute again, so that the next token costs one step.

**B** sequences, **R** rows (several may share a sequence's memory: the beams of a search), **T** room for tokens,
**G** key/value heads, **K** head width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from transformer_lab.layout import Layout
from transformer_lab.models.layers.kernels.reference import Bias, visible
from transformer_lab.models.layers.sublayer import SequenceCache

ROOM = 8  # tokens that a cache has room for at first


class LayerCache:
    """What one layer's self-attention has read: a row for each sequence, filled from the left up to `filled`.

    Its room grows with what is in it, as beams are copied with all of their room whenever they change places.
    """

    def __init__(self, *, rows: int, num_heads: int, head_dim: int, like: Tensor) -> None:
        self.keys = like.new_zeros(rows, num_heads, ROOM, head_dim)  # (R, G, T, K)
        self.values = torch.zeros_like(self.keys)
        self.filled = 0
        self.even = True  # whether all rows are filled as far

    def write(self, k: Tensor, v: Tensor, layout: Layout) -> None:
        """Add the keys and values of new tokens, (N, G, K), at their rows and positions."""
        room = self.keys.shape[2]
        if self.filled + layout.longest > room:
            more = max(room // 2, self.filled + layout.longest - room)
            self.keys, self.values = (pad(x, (0, 0, 0, more)) for x in (self.keys, self.values))
        self.even = self.even and layout.equal
        for held, new in ((self.keys, k), (self.values, v)):
            if self.even:
                shape = (layout.num_sequences, layout.longest)
                held[:, :, self.filled : self.filled + layout.longest] = new.unflatten(0, shape).transpose(1, 2)
            else:
                held[layout.sequence, :, layout.positions] = new
        self.filled += layout.longest

    def attend(self, q: Tensor, positions: Tensor, *, window: int | None, bias: Bias) -> Tensor:
        """Attention of one new token per row, q (R, H, K), to all that its row holds: (R, H, K)."""
        key_positions = torch.arange(self.filled, device=q.device)
        added = bias(positions, key_positions)  # (H, R, T)
        allowed = None
        if not self.even or window is not None or added is not None:
            allowed = visible(positions, key_positions, causal=True, window=window)[:, None, None]  # (R, 1, 1, T)
        if added is not None and allowed is not None:
            allowed = added.transpose(0, 1)[:, :, None].to(q.dtype).masked_fill(~allowed, float("-inf"))
        return _mixed(q[:, :, None], self.keys, self.values, self.filled, allowed).squeeze(2)

    def select(self, rows: Tensor) -> None:
        self.keys, self.values = self.keys.index_select(0, rows), self.values.index_select(0, rows)


class CrossCache:
    """Keys and values of the memory that one layer's cross-attention looks at; the rows of a sequence share them."""

    keys: Tensor  # (B, G, T, K)
    values: Tensor
    allowed: Tensor | None  # (B, 1, 1, T), False where there is no token; None where there is one everywhere

    def write(self, k: Tensor, v: Tensor, layout: Layout) -> None:
        """Take the keys and values of a packed memory, (M, G, K)."""
        shape = (layout.num_sequences, layout.longest, *k.shape[1:])
        where = layout.sequence, layout.positions
        held = torch.float32 if k.device.type == "cpu" else k.dtype  # as `LayerCache` has it
        padded = (x.new_zeros(shape, dtype=held).index_put_(where, x.to(held)) for x in (k, v))
        self.keys, self.values = (x.transpose(1, 2).contiguous() for x in padded)
        real = torch.arange(layout.longest, device=k.device) < layout.lengths[:, None]
        self.allowed = None if layout.equal else real[:, None, None]

    def attend(self, q: Tensor) -> Tensor:
        """Attention of R rows, q (R, H, K), to the memory of their sequence: (R, H, K)."""
        beams = q.unflatten(0, (len(self.keys), -1)).transpose(1, 2)  # (B, H, R / B, K)
        mixed = _mixed(beams, self.keys, self.values, self.keys.shape[2], self.allowed)
        return mixed.transpose(1, 2).flatten(0, 1)

    def select(self, sequences: Tensor) -> None:
        self.keys, self.values = self.keys.index_select(0, sequences), self.values.index_select(0, sequences)
        self.allowed = None if self.allowed is None else self.allowed.index_select(0, sequences)


def _mixed(q: Tensor, keys: Tensor, values: Tensor, filled: int, allowed: Tensor | None) -> Tensor:
    """Attention of few queries to the first `filled` places: (B, H, Q, K), (B, G, T, K) twice -> (B, H, Q, K).

    `allowed` (B, H, Q, filled), or what spreads to it, is whether a query sees a place, or a number to add to its
    score. On a CPU two products over all the room take a third to two thirds of the time of PyTorch's attention, whose
    calls are made for many queries, and of products over a part of the room, which would be copied.
    """
    if q.is_cuda:
        keys, values = keys[:, :, :filled], values[:, :, :filled]
        grouped = q.shape[1] != keys.shape[1]
        return scaled_dot_product_attention(q, keys, values, attn_mask=allowed, enable_gqa=grouped)
    keys, values = keys.flatten(0, 1), values.flatten(0, 1)  # (B * G, T, K)
    shared = q.to(keys.dtype).reshape(len(keys), -1, q.shape[3])  # of heads that share keys (B * G, H / G * Q, K)
    scores = torch.baddbmm(shared.new_zeros(()), shared, keys.mT, beta=0, alpha=q.shape[3] ** -0.5)
    scores[..., filled:] = -torch.inf
    if allowed is not None:
        seen = scores.view(*q.shape[:3], -1)[..., :filled]
        seen.masked_fill_(~allowed, -torch.inf) if allowed.dtype == torch.bool else seen.add_(allowed)
    return torch.bmm(scores.softmax(2), values).view(q.shape)


class Cache:
    """The caches of all layers for so many `rows`; `lengths` (R,) says how many tokens each row holds."""

    def __init__(
        self, layers: Sequence[SequenceCache], cross: Sequence[CrossCache], *, rows: int, device: torch.device
    ) -> None:
        self.layers, self.cross = layers, cross
        self.lengths = torch.zeros(rows, dtype=torch.int64, device=device)
        self.filled = False

    def count(self, layout: Layout) -> None:
        """These tokens have been read."""
        self.lengths, self.filled = self.lengths + layout.lengths, True

    def next(self) -> Layout:
        """The layout of one further token for every row."""
        offsets = torch.arange(len(self.lengths) + 1, dtype=torch.int32, device=self.lengths.device)
        return Layout(offsets, 1, self.lengths)

    def select(self, rows: Tensor, beams: int = 1) -> None:
        """Keep these rows in this order: finished sequences leave, beams are reordered, prompts are multiplied.

        Of a sequence go all of its `beams` rows or none, so that each block of so many rows shares its memory.
        """
        if _every(rows, len(self.lengths)):
            return
        for layer in self.layers:
            layer.select(rows)
        if self.cross:
            held = len(self.cross[0].keys)
            sequences = rows[::beams] // (len(self.lengths) // held)  # rows that a sequence had
            if not _every(sequences, held):
                for cross in self.cross:
                    cross.select(sequences)
        self.lengths = self.lengths[rows]


def _every(chosen: Tensor, count: int) -> bool:
    """Whether all of so many stay, in their order."""
    return len(chosen) == count and bool((chosen == torch.arange(count, device=chosen.device)).all())
