"""Keys and values of the tokens a decoder has already read, so that the next one costs one step.

**B** sequences, **T** capacity, **G** key/value heads, **K** head width.
"""

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from transformer_lab.layout import Layout
from transformer_lab.models.layers.kernels.reference import Bias, visible


class LayerCache:
    """The keys and values of one layer: each sequence has a row, filled from the left up to `filled` at most."""

    def __init__(self, *, rows: int, capacity: int, num_heads: int, head_dim: int, like: Tensor) -> None:
        self.keys = like.new_zeros(rows, num_heads, capacity, head_dim)  # (B, G, T, K)
        self.values = torch.zeros_like(self.keys)
        self.filled = 0

    def write(self, k: Tensor, v: Tensor, layout: Layout) -> None:
        """Add the keys and values of new tokens, (N, G, K), at their rows and places."""
        self.keys[layout.sequence, :, layout.positions] = k
        self.values[layout.sequence, :, layout.positions] = v
        self.filled += layout.longest

    def attend(self, q: Tensor, positions: Tensor, *, window: int | None, bias: Bias) -> Tensor:
        """Attention of one new token per sequence, q (B, H, K), to all that its row holds: (B, H, K)."""
        places = torch.arange(self.filled, device=q.device)
        keep = visible(positions, places, causal=True, window=window)[:, None, None]  # (B, 1, 1, T)
        added = bias(positions, places)  # (H, B, T)
        if added is not None:
            keep = added.transpose(0, 1)[:, :, None].to(q.dtype).masked_fill(~keep, float("-inf"))
        keys, values = self.keys[:, :, : self.filled], self.values[:, :, : self.filled]
        grouped = q.shape[1] != keys.shape[1]
        mixed = scaled_dot_product_attention(q[:, :, None], keys, values, attn_mask=keep, enable_gqa=grouped)
        return mixed.squeeze(2)


class Cache:
    """The caches of all layers; `lengths` (B,) says how many tokens each row holds."""

    def __init__(self, layers: list[LayerCache]) -> None:
        self.layers = layers
        keys = layers[0].keys
        self.lengths = torch.zeros(len(keys), dtype=torch.int64, device=keys.device)

    def next(self) -> Layout:
        """The layout of one further token for every row."""
        offsets = torch.arange(len(self.lengths) + 1, dtype=torch.int32, device=self.lengths.device)
        return Layout(offsets, 1, self.lengths)

    def select(self, rows: Tensor) -> None:
        """Keep these rows in this order: finished sequences leave, beams are reordered."""
        self.lengths = self.lengths[rows]
        for layer in self.layers:
            layer.keys, layer.values = layer.keys[rows], layer.values[rows]
