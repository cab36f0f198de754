"""PyTorch's variable-length flash attention: the packed batch as it is, on CUDA in half precision."""

import inspect
from typing import Any

from torch import Tensor
from torch.nn.attention.varlen import varlen_attn

from transformer_lab.layout import Layout
from transformer_lab.models.layers.kernels.reference import Bias

HAS_GROUPS = "enable_gqa" in inspect.signature(varlen_attn).parameters


def attend(
    q: Tensor, k: Tensor, v: Tensor, *, queries: Layout, keys: Layout, causal: bool, window: int | None, bias: Bias
) -> Tensor:
    reach = -1 if window is None else window - 1
    grouped: dict[str, Any] = {}
    if q.shape[1] != k.shape[1]:
        if HAS_GROUPS:
            grouped = {"enable_gqa": True}
        else:
            k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
    mixed = varlen_attn(
        q,
        k,
        v,
        queries.offsets,
        keys.offsets,
        queries.longest,
        keys.longest,
        window_size=(reach, 0 if causal else reach),
        **grouped,
    )
    assert isinstance(mixed, Tensor)  # a tuple only where more is asked for
    return mixed
