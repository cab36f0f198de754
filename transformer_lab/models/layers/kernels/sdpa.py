"""PyTorch's scaled dot product attention over sequences regrouped by length; runs on every device."""

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from transformer_lab.layout import Layout
from transformer_lab.models.layers.kernels import groups
from transformer_lab.models.layers.kernels.reference import Bias


def attend(
    q: Tensor, k: Tensor, v: Tensor, *, queries: Layout, keys: Layout, causal: bool, window: int | None, bias: Bias
) -> Tensor:
    rules = {"causal": causal, "window": window, "bias": bias}
    return groups.attend(_within, q, k, v, queries=queries, keys=keys, **rules)  # type: ignore[arg-type]


def _within(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    if mask is not None and mask.dtype == q.dtype:
        mask = mask.expand(q.shape[0], q.shape[2], -1, -1)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    grouped = q.shape[1] != k.shape[1]
    mixed = scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=grouped)
    return mixed.transpose(1, 2)
