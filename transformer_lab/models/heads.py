"""From hidden states to predictions and losses.

**N** tokens, **B** sequences, **D** width, **V** vocabulary.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from transformer_lab.layout import Layout
from transformer_lab.models.layers.dropout import Dropout
from transformer_lab.models.token_loss import CrossEntropy, cross_entropy, token_loss, token_scores


class TokenHead(nn.Module):
    """The output matrix: the `embedding` itself (tied; Press and Wolf, 2017, arXiv:1608.05859), or one of its own.

    One of its own starts at zero, so that the first loss is ln V exactly. What it reads is divided by `width_ratio`
    (muP; see `Stack`).
    """

    def __init__(self, *, embedding: nn.Embedding, tied: bool, bias: bool = False, width_ratio: float = 1.0) -> None:
        super().__init__()
        self.width_ratio = width_ratio
        vocab_size, dim = embedding.weight.shape
        self._embedding = (embedding,)  # in a tuple, so that its weight is not listed here once more
        self.weight = None if tied else nn.Parameter(torch.zeros(vocab_size, dim))
        self.bias = nn.Parameter(torch.zeros(vocab_size)) if bias else None
        self.cross_entropy: CrossEntropy | None = None

    def compile(self, *args: Any, **options: Any) -> None:
        """From now on compute the loss with a compiled `cross_entropy`; the options are those of `torch.compile`.

        Not on a CPU, where it takes longer than functions that overwrite the logits.
        """
        if self.matrix.is_cuda:
            self.cross_entropy = torch.compile(cross_entropy, *args, **options)

    @property
    def matrix(self) -> Tensor:  # (V, D)
        return self._embedding[0].weight if self.weight is None else self.weight

    def forward(self, hidden: Tensor) -> Tensor:
        """Logits: (N, D) -> (N, V)."""
        return F.linear(divided(hidden, self.width_ratio), self.matrix, self.bias)

    def loss(self, hidden: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Cross-entropy, summed: (N, D), (N,) -> ()."""
        hidden = divided(hidden, self.width_ratio)
        return token_loss(hidden, self.matrix, targets, self.bias, label_smoothing, self.cross_entropy)

    def losses(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of each token, without a gradient: (N, D), (N,) -> (N,)."""
        return self.score(hidden, targets, likeliest=False)[0]

    def score(self, hidden: Tensor, targets: Tensor, likeliest: bool = True) -> tuple[Tensor, Tensor]:
        """The same, and whether a target was the likeliest token, if that is asked for: (N, D), (N,) -> (N,), (N,)."""
        return token_scores(divided(hidden, self.width_ratio), self.matrix, targets, self.bias, likeliest)


def divided(hidden: Tensor, ratio: float) -> Tensor:
    return hidden if ratio == 1 else hidden / ratio


class Transform(nn.Module):
    """norm(gelu(x W + b)), between BERT's last block and its output matrix, or in front of ModernBERT's classes:
    (N, D) -> (N, D)."""

    def __init__(self, *, dim: int, bias: bool, norm: nn.Module) -> None:
        super().__init__()
        self.dense = nn.Linear(dim, dim, bias=bias)
        self.norm = norm
        nn.init.normal_(self.dense.weight, std=dim**-0.5)
        if bias:
            nn.init.zeros_(self.dense.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(F.gelu(self.dense(x)))


Pooling = Literal["first", "pooler", "mean", "last"]


class SequenceHead(nn.Module):
    """One vector per sequence, and from it the logits of the classes: (R, D) -> (B, classes).

    `pooling` takes the first token, that token through a dense layer and a tanh (BERT's pooler), the mean of all
    tokens, or the last; `transform` makes another of it, where there is one. The output matrix starts at zero, so that
    the first loss is ln C exactly; what it reads is divided by `width_ratio` (muP; see `Stack`). The head reads the
    states of the tokens that `indices` names, and no others.
    """

    def __init__(
        self,
        *,
        dim: int,
        num_classes: int,
        pooling: Pooling,
        transform: Transform | None = None,
        bias: bool = True,
        dropout: float = 0.0,
        width_ratio: float = 1.0,
    ) -> None:
        super().__init__()
        self.pooling, self.width_ratio = pooling, width_ratio
        self.pooler = nn.Linear(dim, dim) if pooling == "pooler" else None
        if self.pooler is not None:
            nn.init.normal_(self.pooler.weight, std=dim**-0.5)
            nn.init.zeros_(self.pooler.bias)
        self.transform = nn.Identity() if transform is None else transform
        self.dropout = Dropout(dropout)
        self.out = nn.Linear(dim, num_classes, bias=bias)
        nn.init.zeros_(self.out.weight)
        if bias:
            nn.init.zeros_(self.out.bias)

    def forward(self, hidden: Tensor, layout: Layout) -> Tensor:
        return self.judge(self.pool(hidden, layout))

    def judge(self, vectors: Tensor) -> Tensor:
        """From one vector per sequence, pooled: (B, D) -> (B, classes)."""
        return self.out(divided(self.dropout(self.transform(vectors)), self.width_ratio))

    def indices(self, layout: Layout) -> Tensor | None:
        """The tokens whose states it reads, one of each sequence: (B,); None: all."""
        match self.pooling:
            case "mean":
                return None
            case "last":
                return layout.offsets[1:].long() - 1
        return layout.offsets[:-1].long()

    def pool(self, hidden: Tensor, layout: Layout) -> Tensor:  # (B, D)
        if self.pooling == "mean":
            return layout.sums(hidden) / layout.lengths[:, None]
        return hidden if self.pooler is None else torch.tanh(self.pooler(hidden))
