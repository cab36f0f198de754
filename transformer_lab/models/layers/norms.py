"""Normalisation of the residual stream, and of queries and keys; what comes out is of the type of what went in."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class RMSNorm(nn.Module):
    """x / rms(x) * weight (Zhang and Sennrich, 2019, arXiv:1910.07467)."""

    def __init__(self, *, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu" and torch.is_autocast_enabled("cpu") and not torch.compiler.is_compiling():
            return _RMSNorm.apply(x, self.weight, self.eps)  # type: ignore[no-untyped-call]
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps).to(x.dtype)


class _RMSNorm(torch.autograd.Function):
    """For a CPU in bf16, where PyTorch's is made of single operations both ways. In single precision throughout, and
    one number of each row is kept besides what went in.

    With n = x / rms(x) and the gradient h of n, that of x is (h - n mean(h n)) / rms(x).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        scale = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        scale.square_().mul_(1 / len(weight)).add_(eps).rsqrt_()
        ctx.save_for_backward(x, scale, weight)
        return (x.float() * scale).mul_(weight).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        x, scale, weight = ctx.saved_tensors
        normalised, grad = x.float() * scale, grads[0].float()
        both = (grad * normalised).flatten(0, -2)
        mean = torch.mv(both, weight).div_(len(weight)).view(scale.shape)
        change = torch.addcmul(grad * weight, normalised, mean, value=-1).mul_(scale)
        return change.to(x.dtype), both.sum(0), None


class LayerNorm(nn.Module):
    """(x - mean(x)) / deviation(x) * weight + bias (Ba et al., 2016, arXiv:1607.06450)."""

    def __init__(self, *, dim: int, eps: float = 1e-5, bias: bool = True) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps).to(x.dtype)
