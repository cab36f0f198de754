"""The fastest kernel for what is asked: varlen or flex on CUDA for sequences of many lengths, matmul on a CPU in bf16,
sdpa for all else."""

import torch
from torch import Tensor

from transformer_lab.layout import Layout
from transformer_lab.models.layers.kernels import matmul, sdpa
from transformer_lab.models.layers.kernels.reference import Bias


def choose(device: torch.device, dtype: torch.dtype, head_dim: int, *, biased: bool, plain: bool) -> str:
    """The name of the kernel that serves heads of this width, on this device and in this type.

    `plain`: sequences of one length without a window, which sdpa need not mask; GPT-2's step is then 2 % shorter.
    """
    if device.type == "cpu" and dtype == torch.bfloat16:
        return "matmul"
    wanted = "flex" if biased else "sdpa" if plain else "varlen"
    return "sdpa" if refusal(wanted, device, dtype, head_dim, biased=biased) else wanted


def refusal(kernel: str, device: torch.device, dtype: torch.dtype, head_dim: int, *, biased: bool) -> str | None:
    """Why a kernel cannot serve heads of this width, on this device and in this type, with this position scheme."""
    if kernel in ("varlen", "flex") and device.type != "cuda":
        return f"{kernel} needs a CUDA device; attention=auto takes what runs here"
    if kernel == "varlen" and dtype == torch.float32:
        return "varlen computes in half precision only; hardware.precision=bf16 or attention=auto"
    if kernel == "varlen" and biased:
        return "varlen cannot add the position scheme's bias to the scores; attention=flex or auto"
    if kernel == "varlen" and (head_dim % 8 or head_dim > 256):
        return f"varlen serves heads as wide as a multiple of 8, up to 256, and these are {head_dim}; attention=auto"
    if kernel == "flex" and head_dim < 16:
        return f"flex serves heads at least 16 wide, and these are {head_dim}; attention=auto"
    return None


def attend(
    q: Tensor, k: Tensor, v: Tensor, *, queries: Layout, keys: Layout, causal: bool, window: int | None, bias: Bias
) -> Tensor:
    biased = q.device.type == "cuda" and bias(queries.positions[:1], keys.positions[:1]) is not None
    kernel = sdpa.attend
    plain = window is None and queries.equal and keys.equal
    match choose(q.device, q.dtype, q.shape[-1], biased=biased, plain=plain):
        case "matmul":
            kernel = matmul.attend
        # Imported where they are used: neither can be, nor need be, on a machine without CUDA.
        case "varlen":
            from transformer_lab.models.layers.kernels.varlen import attend as kernel
        case "flex":
            from transformer_lab.models.layers.kernels.flex import attend as kernel
    return kernel(q, k, v, queries=queries, keys=keys, causal=causal, window=window, bias=bias)
