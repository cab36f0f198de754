"""From hidden states to predictions, and to a loss that never holds all logits at once.

**N** tokens, **D** width, **V** vocabulary, **C** tokens of a chunk.
"""

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.nn import functional as F

# Logits held at a time: 4M floats are 16 MB, which stays near the caches of a CPU and is nothing to a GPU.
LOGITS_AT_ONCE = 1 << 22


def token_loss(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of `hidden @ weight.T` with the targets, summed: (N, D), (V, D), (N,) -> ().

    The logits exist for a chunk of tokens at a time. Their gradient is taken while they are there, so nothing is
    computed twice (Hsu et al., 2024, arXiv:2410.10989, section 3.2).
    """
    if torch.is_autocast_enabled(hidden.device.type):
        dtype = torch.get_autocast_dtype(hidden.device.type)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
    return _ChunkedCrossEntropy.apply(hidden, weight, targets)  # type: ignore[no-any-return]


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        learns = any(ctx.needs_input_grad)  # type: ignore[attr-defined]
        hidden_grad = torch.empty_like(hidden) if learns else None
        weight_grad = torch.zeros_like(weight, dtype=torch.float32) if learns else None
        loss = hidden.new_zeros((), dtype=torch.float32)
        size = max(1, LOGITS_AT_ONCE // len(weight))
        for begin in range(0, len(hidden), size):
            rows = slice(begin, begin + size)
            states, wanted = hidden[rows], targets[rows, None]
            with torch.autocast(hidden.device.type, enabled=False):
                log_p = F.log_softmax((states @ weight.T).float(), dim=-1)  # (C, V)
                loss -= log_p.gather(1, wanted).sum()
                if hidden_grad is not None and weight_grad is not None:
                    # The gradient of the logits is p minus 1 at the target.
                    p = log_p.exp_()
                    p.scatter_add_(1, wanted, p.new_full((), -1.0).expand(wanted.shape))
                    p = p.to(hidden.dtype)
                    torch.mm(p, weight, out=hidden_grad[rows])
                    if weight.dtype == torch.float32:
                        weight_grad.addmm_(p.T, states)
                    else:
                        weight_grad += p.T @ states
        if hidden_grad is not None and weight_grad is not None:
            ctx.save_for_backward(hidden_grad, weight_grad.to(weight.dtype))
        return loss

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        hidden_grad, weight_grad = ctx.saved_tensors  # type: ignore[attr-defined]
        return hidden_grad * grads[0], weight_grad * grads[0], None
