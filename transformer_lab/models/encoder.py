"""A stack that looks both ways: each token sees its whole sequence (BERT; Devlin et al., 2019, arXiv:1810.04805).

**N** tokens of a batch, **D** width.
"""

from typing import Unpack

from torch import Tensor, nn

from transformer_lab.layout import Layout, check_packed
from transformer_lab.models.model import Model
from transformer_lab.models.stack import Stack, StackOptions, embedding


class Encoder(Stack, Model):
    """Tokens in, hidden states out: (N,) -> (N, D), or of R indices (R, D); heads belong to the tasks.

    Options are those of `Stack`. `token_types` is how many kinds of token are told apart by a vector of their own
    (BERT's two segments); 0: none.
    """

    def __init__(
        self, *, vocab_size: int, num_layers: int, token_types: int = 0, **stack: Unpack[StackOptions]
    ) -> None:
        super().__init__(causal=False, cross=False, cross_position=False, num_layers=num_layers, **stack)
        if token_types < 0:
            raise ValueError(f"model.token_types: {token_types} is negative; 2 for segment pairs, 0 for none")
        self.embedding = embedding(
            vocab_size, self.dim, scaled=False, residual_init=self.residual_init, width_ratio=self.width_ratio
        )
        self.types = nn.Embedding(token_types, self.dim) if token_types else None
        if self.types is not None:
            nn.init.normal_(self.types.weight, std=0.02)

    def forward(
        self, tokens: Tensor, layout: Layout, types: Tensor | None = None, indices: Tensor | None = None
    ) -> Tensor:
        """`types` (N,) says of which kind each token is; None: all of the first. `indices` (R,) are the tokens whose
        states are asked for; None: all."""
        check_packed(tokens, 1, "tokens")
        x = self.embedding(tokens)
        if self.types is not None:
            x = x + (self.types.weight[0] if types is None else self.types(types))
        return self.run(x, layout, indices=indices)
