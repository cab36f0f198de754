"""One trained vector per position, as in GPT-2 and BERT (Gehring et al., 2017, arXiv:1705.03122)."""

from torch import Tensor, nn

from transformer_lab.models.layers.positions.base import Position


class Learned(Position):
    refusal = "learned positions are already in the embeddings of both texts"

    def __init__(self, *, dim: int, num_heads: int, causal: bool, head_dim: int | None = None, max_length: int) -> None:
        super().__init__(dim=dim, num_heads=num_heads, causal=causal, head_dim=head_dim)
        if max_length < 1:
            raise ValueError(f"position.max_length: {max_length} positions are too few; at least 1")
        self.max_length = max_length
        self.table = nn.Embedding(max_length, dim)
        nn.init.normal_(self.table.weight, std=0.02)

    def embed(self, x: Tensor, positions: Tensor) -> Tensor:
        return x + self.table(positions)
