"""A causal stack: each token sees itself and what came before it (GPT; Radford et al., 2019).

**N** tokens of a batch, **D** width.
"""

from typing import Unpack

from torch import Tensor

from transformer_lab.layout import Layout, check_packed
from transformer_lab.models.layers.cache import Cache
from transformer_lab.models.model import Model
from transformer_lab.models.stack import Stack, StackOptions, embedding


class Decoder(Stack, Model):
    """Tokens in, hidden states out: (N,) -> (N, D), or of R indices (R, D); heads belong to the tasks.

    Options are those of `Stack`. `scale_embedding` multiplies embeddings by the root of D (Vaswani et al., 2017,
    section 3.4).
    """

    def __init__(
        self, *, vocab_size: int, num_layers: int, scale_embedding: bool = False, **stack: Unpack[StackOptions]
    ) -> None:
        super().__init__(causal=True, cross=False, cross_position=False, num_layers=num_layers, **stack)
        self.embedding = embedding(
            vocab_size, self.dim, scaled=scale_embedding, residual_init=self.residual_init, width_ratio=self.width_ratio
        )
        self.scale = (self.dim / self.width_ratio) ** 0.5 if scale_embedding else 1.0

    def forward(
        self, tokens: Tensor, layout: Layout, cache: Cache | None = None, indices: Tensor | None = None
    ) -> Tensor:
        """`indices` (R,) are the tokens whose states are asked for; None: all."""
        check_packed(tokens, 1, "tokens")
        x = self.embedding(tokens)
        return self.run(x * self.scale if self.scale != 1 else x, layout, cache=cache, indices=indices)
