"""Matrices in the layout that products with few rows are fast in, for as long as a model writes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from transformer_lab.models.heads import TokenHead, divided


@contextmanager
def prepacked_weights(task: nn.Module, rows: int) -> Iterator[None]:
    """For as long as this lasts, multiply about so many rows by copies of a task's matrices that oneDNN has laid out.

    On a CPU; elsewhere nothing changes. What is computed is the same to rounding, and writing 1.1 to 1.3 times as fast.
    The copies take as much memory as the matrices. Within autocast they are in its type, as what is multiplied by them
    and their products; keys and values are kept in single precision then, which a CPU is faster with.
    """
    mixed = torch.is_autocast_enabled("cpu")
    dtype = torch.get_autocast_dtype("cpu") if mixed else torch.float32
    layers = [module for module in task.modules() if isinstance(module, nn.Linear | TokenHead)]
    layers = [layer for layer in layers if (m := _matrix(layer)).device.type == "cpu" and m.dtype == torch.float32]
    if not torch.backends.mkldnn.is_available() or (mixed and not torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        layers = []
    try:
        for layer in layers:
            layer.forward = _prepacked(layer, rows, dtype)  # type: ignore[assignment, method-assign]
        with torch.autocast("cpu", enabled=False) if layers else nullcontext():
            yield
    finally:
        for layer in layers:
            del layer.forward


def _matrix(layer: nn.Linear | TokenHead) -> Tensor:
    return layer.weight if isinstance(layer, nn.Linear) else layer.matrix


def _prepacked(layer: nn.Linear | TokenHead, rows: int, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    # What torch.compile uses for models that do not change any more; there is no other way to lay out a matrix once.
    copy = torch.ops.mkldnn._reorder_linear_weight(_matrix(layer).detach().to(dtype), rows)
    bias = None if layer.bias is None else layer.bias.detach().to(dtype)
    ratio = layer.width_ratio if isinstance(layer, TokenHead) else 1.0

    def forward(x: Tensor) -> Tensor:
        states = divided(x, ratio).to(dtype)
        product: Tensor = torch.ops.mkldnn._linear_pointwise(states, copy, bias, "none", [], "")
        return product

    return forward
