"""How much there is to compute, and how fast the device could: both give the share of its speed that a run reaches."""

import time
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from transformer_lab.data.steps import Batch, Steps
from transformer_lab.models.layers.attention import kernels_of
from transformer_lab.models.layers.sublayer import sublayers
from transformer_lab.tasks.base import Task
from transformer_lab.training.hardware import Hardware

SAMPLED = 4096  # tokens that are looked at to count FLOPs
PRODUCTS = (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.bmm, torch.ops.aten.baddbmm)


@dataclass(frozen=True)
class Speed:
    """What MFU, the share of a device's matrix rate that a run reaches, is worked out from (Chowdhery et al., 2022,
    arXiv:2204.02311, appendix B)."""

    flops_per_token: float  # of training
    matrix_rate: float  # FLOP/s that all devices do at their best

    def mfu(self, tokens_per_second: float) -> float:
        return tokens_per_second * self.flops_per_token / self.matrix_rate


def measure(task: Task, steps: Steps, machine: Hardware) -> Speed:
    """Count on the first tokens of the first step, and multiply matrices for a tenth of a second."""
    units = steps.plan.step(0)[: max(1, SAMPLED // steps.packing.capacity)]
    batch = steps.batch(0, units).to(machine.device)
    task.to(machine.device)
    with machine.autocast():
        flops = flops_per_token(task, batch)
    rate = _rate_here(machine.device, machine.dtype)
    if machine.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()  # these matrices are none of the run's
    return Speed(flops, steps.world_size * rate)


def forward_flops(task: Task, batch: Batch) -> float:
    """Floating-point operations of a forward pass: products with matrices, and what sub-layers do beside them.

    Attention is not computed here: a kernel that compiles itself cannot be while PyTorch counts the products.
    """
    extra = 0.0

    def count(layer: Any, inputs: tuple[Any, ...], more: dict[str, Any], output: Tensor) -> None:
        nonlocal extra
        extra += layer.extra_flops(*inputs, **more)

    hooks = [layer.register_forward_hook(count, with_kwargs=True) for layer in sublayers(task)]
    try:
        with torch.no_grad(), kernels_of(task, lambda _: _blind), FlopCounterMode(display=False) as counter:
            task(batch)
    finally:
        for hook in hooks:
            hook.remove()
    counts = counter.get_flop_counts().get("Global", {})
    return extra + sum(counts.get(product, 0) for product in PRODUCTS)


def _blind(q: Tensor, k: Tensor, v: Tensor, **rules: Any) -> Tensor:
    return torch.empty_like(q)


def flops_per_token(task: Task, batch: Batch) -> float:
    """… of training, for each token that the model reads: forward once, and backward twice that (Kaplan et al., 2020,
    arXiv:2001.08361, section 2.1)."""
    return 3 * forward_flops(task, batch) / batch.num_tokens


def matrix_rate(
    device: torch.device, dtype: torch.dtype, seconds: float = 0.1, shape: tuple[int, int, int] | None = None
) -> float:
    """FLOP/s in the product of two matrices: what the device does at its best, now.

    `shape` is their rows, inner size and columns; None: those of a large feed-forward layer.
    """
    rows, inner, columns = shape or ((16_384, 8192, 8192) if device.type == "cuda" else (2048, 1024, 1024))
    a = torch.randn(rows, inner, device=device, dtype=dtype)
    b = torch.randn(inner, columns, device=device, dtype=dtype)
    a @ b  # the first product of a process makes the library ready
    synchronize(device)
    best, until = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < until:
        started = time.perf_counter()
        a @ b
        synchronize(device)
        best = max(best, 2 * rows * inner * columns / (time.perf_counter() - started))
    return best


_rate_here = cache(matrix_rate)  # the trials of a sweep, one after the other, need it measured once


def synchronize(device: torch.device) -> None:
    """Return once the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()
