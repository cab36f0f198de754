"""A trained bias per bucket of distances, wider the farther (T5; Raffel et al., 2020, arXiv:1910.10683)."""

import torch
from torch import Tensor, nn

from transformer_lab.models.layers.positions.base import Position


class RelativeBuckets(Position):
    """All layers share one table. From `max_distance` on, all distances share the last bucket."""

    refusal = "relative buckets measure a distance within one text"
    buckets: Tensor

    def __init__(
        self,
        *,
        dim: int,
        num_heads: int,
        causal: bool,
        head_dim: int | None = None,
        num_buckets: int = 32,
        max_distance: int = 128,
    ) -> None:
        super().__init__(dim=dim, num_heads=num_heads, causal=causal, head_dim=head_dim)
        if num_buckets < 4 or num_buckets % 2:
            raise ValueError(
                f"position.num_buckets: {num_buckets} cannot be halved for near and far, and for before "
                f"and after; an even number from 4 on can"
            )
        if max_distance <= num_buckets // 2:
            raise ValueError(
                f"position.max_distance: {max_distance} leaves nothing to the wide buckets, as the first "
                f"{num_buckets // 2} hold one distance each; at least {num_buckets // 2 + 1}"
            )
        self.max_distance = max_distance
        self.table = nn.Embedding(num_buckets, num_heads)
        # T5's own deviation: little beside scores of about one, so a stack begins almost blind to distance.
        nn.init.normal_(self.table.weight, std=dim**-0.5)
        offsets = range(-max_distance, max_distance + 1)
        buckets = torch.tensor([bucket(offset, num_buckets, max_distance, causal) for offset in offsets])
        self.register_buffer("buckets", buckets, persistent=False)

    def bias(self, query_positions: Tensor, key_positions: Tensor) -> Tensor:
        offsets = key_positions[None, :] - query_positions[:, None]
        buckets = self.buckets[offsets.clamp(-self.max_distance, self.max_distance) + self.max_distance]  # (Q, K)
        # What `self.table(buckets)` would be, but heads first and several times as fast on a CPU.
        return self.table.weight.T.index_select(1, buckets.flatten()).unflatten(1, buckets.shape)  # (H, Q, K)


def bucket(offset: int, num_buckets: int, max_distance: int, causal: bool) -> int:
    """The bucket of a key `offset` positions after its query; a causal stack needs none for those ahead."""
    if causal:
        return _bucket(max(-offset, 0), num_buckets, max_distance)
    half = num_buckets // 2
    return (half if offset > 0 else 0) + _bucket(abs(offset), half, max_distance)


def _bucket(distance: int, num_buckets: int, max_distance: int) -> int:
    near = num_buckets // 2
    if distance < near:
        return distance
    # log(distance / near) / log(max_distance / near) * far, rounded down: by whole powers, as a logarithm in floating
    # point may fall on either side of a bucket's edge, differently from machine to machine.
    far = num_buckets - near
    return near + sum(distance**far * near**step >= max_distance**step * near**far for step in range(1, far))
