"""The fastest kernel for what is asked: varlen or flex on CUDA, sdpa everywhere else."""

import torch
from torch import Tensor

from transformer_lab.layout import Layout
from transformer_lab.models.layers.kernels import sdpa
from transformer_lab.models.layers.kernels.reference import Bias


def choose(device: torch.device, dtype: torch.dtype, biased: bool) -> str:
    """The name of the kernel that serves tensors of this device and type."""
    if device.type != "cuda":
        return "sdpa"
    if biased:
        return "flex"
    return "varlen" if dtype in (torch.float16, torch.bfloat16) else "sdpa"


def attend(q: Tensor, k: Tensor, v: Tensor, *, queries: Layout, keys: Layout, causal: bool,
           window: int | None, bias: Bias) -> Tensor:  # fmt: skip
    biased = q.device.type == "cuda" and bias(queries.positions[:1], keys.positions[:1]) is not None
    kernel = sdpa.attend
    match choose(q.device, q.dtype, biased):
        # Imported where they are used: neither can be, nor need be, on a machine without CUDA.
        case "varlen":
            from transformer_lab.models.layers.kernels.varlen import attend as kernel
        case "flex":
            from transformer_lab.models.layers.kernels.flex import attend as kernel
    return kernel(q, k, v, queries=queries, keys=keys, causal=causal, window=window, bias=bias)
