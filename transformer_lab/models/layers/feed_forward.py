"""The feed-forward half of a block: each token on its own, up to a wider layer and back.

**N** tokens, **D** width, **F** hidden width.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from transformer_lab.models.layers.sublayer import SubLayer


class FeedForward(SubLayer):
    """down(activation(up(x))): (N, D) -> (N, D); F = 4 D unless `hidden_dim` says else."""

    def __init__(self, *, dim: int, hidden_dim: int | None = None, bias: bool = True) -> None:
        super().__init__()
        hidden_dim = 4 * dim if hidden_dim is None else _positive(hidden_dim)
        self.up = nn.Linear(dim, hidden_dim, bias=bias)
        self.down = nn.Linear(hidden_dim, dim, bias=bias)

    @property
    def output(self) -> nn.Linear:
        return self.down

    def forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError


class GELU(FeedForward):
    """down(gelu(up(x))) (Hendrycks and Gimpel, 2016, arXiv:1606.08415)."""

    def __init__(
        self,
        *,
        dim: int,
        hidden_dim: int | None = None,
        bias: bool = True,
        approximate: Literal["none", "tanh"] = "none",
    ) -> None:
        super().__init__(dim=dim, hidden_dim=hidden_dim, bias=bias)
        self.approximate = approximate

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x), approximate=self.approximate))


class ReLU(FeedForward):
    """down(relu(up(x))) (Vaswani et al., 2017, arXiv:1706.03762)."""

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.relu(self.up(x)))


class SiLU(FeedForward):
    """down(silu(up(x))), also known as swish (Ramachandran et al., 2017, arXiv:1710.05941)."""

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.up(x)))


class SquaredReLU(FeedForward):
    """down(relu(up(x))²) (Primer; So et al., 2021, arXiv:2109.08668)."""

    def __init__(self, *, dim: int, hidden_dim: int | None = None, bias: bool = False) -> None:
        super().__init__(dim=dim, hidden_dim=hidden_dim, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.up(x)
        if hidden.device.type == "cpu" and not torch.compiler.is_compiling():  # the same to the bit
            return self.down(_SquaredReLU.apply(hidden))  # type: ignore[no-untyped-call]
        return self.down(F.relu(hidden).square())


class _SquaredReLU(torch.autograd.Function):
    """For a CPU: two passes each way, where single operations take two and four, and some of those slow ones."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        positive = F.relu(x)
        ctx.save_for_backward(positive)
        return positive * positive

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (positive,) = ctx.saved_tensors
        return (grads[0] * positive).mul_(2)


class XIELU(FeedForward):
    """down(xielu(up(x))): a parabola above zero, an exponential below it, and how much of either is learned
    (Huang and Schlag, 2024, arXiv:2411.13010), as in Apertus."""

    SLOPE = 0.5  # at zero, from either side

    def __init__(self, *, dim: int, hidden_dim: int | None = None, bias: bool = False) -> None:
        super().__init__(dim=dim, hidden_dim=hidden_dim, bias=bias)
        # What softplus makes 0.8 of the first and 0.3 of the second, which stands above the slope.
        self.alpha_p = nn.Parameter(torch.tensor([0.8]).expm1().log())
        self.alpha_n = nn.Parameter(torch.tensor([0.3]).expm1().log())

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.up(x)
        above, below = F.softplus(self.alpha_p), self.SLOPE + F.softplus(self.alpha_n)
        left = below * (torch.expm1(hidden.clamp(max=-1e-6)) - hidden)
        return self.down(torch.where(hidden > 0, above * hidden * hidden, left) + self.SLOPE * hidden)


class Gated(FeedForward):
    """down(activation(gate(x)) * up(x)) (Shazeer, 2020, arXiv:2002.05202).

    F = 8/3 D, which makes three matrices as large as the usual two, rounded up to a multiple of 32.
    """

    def __init__(self, *, dim: int, hidden_dim: int | None = None, bias: bool = False) -> None:
        super().__init__(
            dim=dim, hidden_dim=-(-8 * dim // 3 // 32) * 32 if hidden_dim is None else hidden_dim, bias=bias
        )
        self.gate = nn.Linear(dim, self.up.out_features, bias=bias)


class SwiGLU(Gated):
    """With SiLU, as in Llama."""

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class GeGLU(Gated):
    """With GELU, as in ModernBERT; by tanh, as in T5 v1.1."""

    def __init__(
        self,
        *,
        dim: int,
        hidden_dim: int | None = None,
        bias: bool = False,
        approximate: Literal["none", "tanh"] = "none",
    ) -> None:
        super().__init__(dim=dim, hidden_dim=hidden_dim, bias=bias)
        self.approximate = approximate

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.gate(x), approximate=self.approximate) * self.up(x))


def _positive(hidden_dim: int) -> int:
    if hidden_dim < 1:
        raise ValueError(f"feed_forward.hidden_dim: {hidden_dim} is not a width; at least 1")
    return hidden_dim
