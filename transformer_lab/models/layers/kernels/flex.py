"""PyTorch's flex_attention, compiled: biases, windows and documents without a dense mask, on CUDA."""

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from transformer_lab.layout import Layout
from transformer_lab.models.layers.kernels.reference import Bias

compiled = torch.compile(flex_attention, dynamic=False)


def attend(q: Tensor, k: Tensor, v: Tensor, *, queries: Layout, keys: Layout, causal: bool,
           window: int | None, bias: Bias) -> Tensor:  # fmt: skip
    mask = _block_mask(queries, keys, causal, window)
    # The places of one sequence are all a bias can depend on, so a table of them serves every pair of tokens.
    table = bias(torch.arange(queries.longest, device=q.device), torch.arange(keys.longest, device=q.device))

    def add_bias(score, batch, head, query, key):  # type: ignore[no-untyped-def]
        assert table is not None
        return score + table[head, queries.positions[query], keys.positions[key]]

    # On a CPU the compiled kernel has no backward; the uncompiled one is exact and lets tests run this code.
    run = compiled if q.is_cuda else flex_attention
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))  # (1, H, N, K)
    mixed = run(q, k, v, score_mod=None if table is None else add_bias, block_mask=mask,
                enable_gqa=q.shape[1] != k.shape[1])  # fmt: skip
    return mixed[0].transpose(0, 1)


def _block_mask(queries: Layout, keys: Layout, causal: bool, window: int | None) -> BlockMask:
    name = ("block mask", causal, window)
    if name not in queries.scratch or queries.scratch[name][0] is not keys:
        query_sequence, key_sequence = queries.sequence, keys.sequence
        query_places, key_places = queries.positions, keys.positions

        def keep(batch, head, query, key):  # type: ignore[no-untyped-def]
            distance = query_places[query] - key_places[key]
            seen = query_sequence[query] == key_sequence[key]
            if causal:
                seen = seen & (distance >= 0)
            if window is not None:
                seen = seen & (distance.abs() < window)
            return seen

        sizes = len(query_sequence), len(key_sequence)
        queries.scratch[name] = keys, create_block_mask(keep, None, None, *sizes, device=query_places.device)
    return queries.scratch[name][1]  # type: ignore[no-any-return]
