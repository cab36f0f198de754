"""The feed-forward half of a block: each token on its own, up to a wider layer and back.

**N** tokens, **D** width, **F** hidden width.
"""

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F


class FeedForward(nn.Module):
    """(N, D) -> (N, D); `down` is the matrix that writes to the residual stream."""

    down: nn.Linear


class GELU(FeedForward):
    """down(gelu(up(x))) (Hendrycks and Gimpel, 2016, arXiv:1606.08415); F = 4 D unless `hidden_dim` says else."""

    def __init__(self, *, dim: int, hidden_dim: int | None = None, bias: bool = True,
                 approximate: Literal["none", "tanh"] = "none") -> None:  # fmt: skip
        super().__init__()
        hidden_dim = _positive(hidden_dim or 4 * dim)
        self.approximate = approximate
        self.up = nn.Linear(dim, hidden_dim, bias=bias)
        self.down = nn.Linear(hidden_dim, dim, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x), approximate=self.approximate))


class SquaredReLU(FeedForward):
    """down(relu(up(x))²) (Primer; So et al., 2021, arXiv:2109.08668); F = 4 D unless `hidden_dim` says else."""

    def __init__(self, *, dim: int, hidden_dim: int | None = None, bias: bool = False) -> None:
        super().__init__()
        hidden_dim = _positive(hidden_dim or 4 * dim)
        self.up = nn.Linear(dim, hidden_dim, bias=bias)
        self.down = nn.Linear(hidden_dim, dim, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.relu(self.up(x)).square())


class SwiGLU(FeedForward):
    """down(silu(gate(x)) * up(x)) (Shazeer, 2020, arXiv:2002.05202).

    F = 8/3 D, which makes three matrices as large as the usual two, rounded up to a multiple of 32.
    """

    def __init__(self, *, dim: int, hidden_dim: int | None = None, bias: bool = False) -> None:
        super().__init__()
        hidden_dim = _positive(hidden_dim or -(-8 * dim // 3 // 32) * 32)
        self.gate = nn.Linear(dim, hidden_dim, bias=bias)
        self.up = nn.Linear(dim, hidden_dim, bias=bias)
        self.down = nn.Linear(hidden_dim, dim, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


def _positive(hidden_dim: int) -> int:
    if hidden_dim < 1:
        raise ValueError(f"feed_forward.hidden_dim: {hidden_dim} is not a width; at least 1")
    return hidden_dim
