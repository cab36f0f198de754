"""The blocks that stacks are made of: norm, sub-layer, add (pre-norm; Xiong et al., 2020, arXiv:2002.04745).

**N** tokens of a batch, **D** width.
"""

import torch
from torch import Tensor, nn

from transformer_lab.layout import Layout
from transformer_lab.models.layers.attention import Attention
from transformer_lab.models.layers.cache import LayerCache
from transformer_lab.models.layers.feed_forward import FeedForward
from transformer_lab.models.layers.positions.base import Position


class PreNormBlock(nn.Module):
    """Tokens look at their own sequence, then each thinks for itself: (N, D) -> (N, D)."""

    def __init__(self, *, attention: Attention, attention_norm: nn.Module, feed_forward: FeedForward,
                 feed_forward_norm: nn.Module, dropout: float) -> None:  # fmt: skip
        super().__init__()
        self.attention_norm = attention_norm
        self.attention = attention
        self.feed_forward_norm = feed_forward_norm
        self.feed_forward = feed_forward
        self.dropout = nn.Dropout(dropout)

    def initialise(self, residual: float) -> None:
        """Matrices get variance 1 / fan-in; those that write to the residual stream are scaled by `residual`."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        with torch.no_grad():
            for writer in (self.attention.out, self.feed_forward.down):
                writer.weight.mul_(residual)

    def forward(self, x: Tensor, layout: Layout, position: Position, cache: LayerCache | None = None) -> Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x), layout, position, cache))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))
