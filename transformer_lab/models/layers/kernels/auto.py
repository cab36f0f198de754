"""The fastest kernel for what is asked: varlen or flex on CUDA for sequences of many lengths, sdpa for all else."""

import torch
from torch import Tensor

from transformer_lab.layout import Layout
from transformer_lab.models.layers.kernels import sdpa
from transformer_lab.models.layers.kernels.reference import Bias


def choose(device: torch.device, dtype: torch.dtype, *, biased: bool, plain: bool) -> str:
    """The name of the kernel that serves tensors of this device and type.

    `plain`: sequences of one length without a window, which sdpa need not mask; GPT-2's step is then 2 % shorter.
    """
    if device.type != "cuda":
        return "sdpa"
    if biased:
        return "flex"
    return "varlen" if dtype in (torch.float16, torch.bfloat16) and not plain else "sdpa"


def check(kernel: str, device: torch.device, dtype: torch.dtype, biased: bool) -> None:
    """Raises ValueError where a kernel cannot serve tensors of this device and type, with this position scheme."""
    if kernel in ("varlen", "flex") and device.type != "cuda":
        raise ValueError(f"attention: {kernel} needs a CUDA device; attention=auto takes what runs here")
    if kernel == "varlen" and dtype == torch.float32:
        raise ValueError("attention: varlen computes in half precision only; hardware.precision=bf16 or attention=auto")
    if kernel == "varlen" and biased:
        raise ValueError(
            "attention: varlen cannot add the position scheme's bias to the scores; attention=flex or auto"
        )


def attend(q: Tensor, k: Tensor, v: Tensor, *, queries: Layout, keys: Layout, causal: bool,
           window: int | None, bias: Bias) -> Tensor:  # fmt: skip
    biased = q.device.type == "cuda" and bias(queries.positions[:1], keys.positions[:1]) is not None
    kernel = sdpa.attend
    plain = window is None and queries.equal and keys.equal
    match choose(q.device, q.dtype, biased=biased, plain=plain):
        # Imported where they are used: neither can be, nor need be, on a machine without CUDA.
        case "varlen":
            from transformer_lab.models.layers.kernels.varlen import attend as kernel
        case "flex":
            from transformer_lab.models.layers.kernels.flex import attend as kernel
    return kernel(q, k, v, queries=queries, keys=keys, causal=causal, window=window, bias=bias)
