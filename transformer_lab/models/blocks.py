"""The blocks that stacks are made of: sub-layers, each with its norm and its way around it.

**N** tokens of a batch, **D** width.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from transformer_lab.layout import Layout
from transformer_lab.models.layers.attention import Memory, Norm
from transformer_lab.models.layers.cache import CrossCache
from transformer_lab.models.layers.dropout import Dropout
from transformer_lab.models.layers.positions.base import Position
from transformer_lab.models.layers.sublayer import SequenceCache, SubLayer


class Residual(nn.Module):
    """A sub-layer, and the way around it: (N, D) -> (N, D). Subclasses say where the norm stands."""

    final_norm: ClassVar[bool]  # whether a stack of these ends with a norm of its own

    def __init__(self, *, dim: int, layer: SubLayer, norm: Norm, dropout: float) -> None:
        super().__init__()
        self.norm = norm(dim=dim)
        self.layer = layer
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, *context: Any) -> Tensor:
        raise NotImplementedError

    def initialise(self, residual: float) -> None:
        """Draw the weights of the sub-layer anew; what is added to the residual stream is scaled by `residual`."""
        self.layer.initialise(residual)


class PreNorm(Residual):
    """x + f(norm(x)): trains without a warm-up (Xiong et al., 2020, arXiv:2002.04745)."""

    final_norm = True

    def forward(self, x: Tensor, *context: Any) -> Tensor:
        return x + self.dropout(self.layer(self.norm(x), *context))


class PostNorm(Residual):
    """norm(x + f(x)): the first transformer and BERT (Vaswani et al., 2017, arXiv:1706.03762)."""

    final_norm = False

    def forward(self, x: Tensor, *context: Any) -> Tensor:
        return self.norm(x + self.dropout(self.layer(x, *context)))


class SandwichNorm(Residual):
    """x + norm(f(norm(x))): before and after (Ding et al., 2021, arXiv:2105.13290).

    What the layer writes is normalised, so that only the outer norm's weight can make it small; where the norm has
    none, `gain` is one.
    """

    final_norm = True

    def __init__(self, *, dim: int, layer: SubLayer, norm: Norm, dropout: float) -> None:
        super().__init__(dim=dim, layer=layer, norm=norm, dropout=dropout)
        self.outer_norm = norm(dim=dim)
        weighed = isinstance(getattr(self.outer_norm, "weight", None), nn.Parameter)
        self.gain = None if weighed else nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor, *context: Any) -> Tensor:
        added = self.outer_norm(self.layer(self.norm(x), *context))
        return x + self.dropout(added if self.gain is None else added * self.gain)

    @torch.no_grad()
    def initialise(self, residual: float) -> None:
        self.layer.initialise(1.0)
        weight: Any = self.outer_norm.weight if self.gain is None else self.gain
        weight.mul_(residual)


class Block(nn.Module):
    """Tokens look at their own sequence, perhaps at another text, then each thinks for itself: (N, D) -> (N, D)."""

    def __init__(self, *, attention: Residual, cross_attention: Residual | None, feed_forward: Residual) -> None:
        super().__init__()
        self.attention = attention
        self.cross_attention = cross_attention
        self.feed_forward = feed_forward

    @property
    def residuals(self) -> list[Residual]:
        return [x for x in (self.attention, self.cross_attention, self.feed_forward) if x is not None]

    def forward(
        self,
        x: Tensor,
        layout: Layout,
        position: Position,
        cross_position: Position | None = None,
        memory: Memory | None = None,
        cache: SequenceCache | None = None,
        cross_cache: CrossCache | None = None,
        indices: Tensor | None = None,
    ) -> Tensor:
        """`indices` (R,) are the tokens whose states anybody reads, to which alone the feed-forward half is applied:
        (N, D) -> (R, D); None: all."""
        x = self.attention(x, layout, position, cache)
        if self.cross_attention is not None:
            x = self.cross_attention(x, layout, cross_position, memory, cross_cache)
        return self.feed_forward(x if indices is None else x.index_select(0, indices))
