"""PyTorch's flex_attention, compiled: biases, windows and documents without a dense mask, on CUDA."""

import torch
from torch import Tensor
from torch._dynamo import config
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from torch.nn.functional import pad

from transformer_lab.layout import Layout
from transformer_lab.models.layers.kernels.reference import Bias

TILE = 128  # queries, and keys, of the pieces that flex_attention works in
# One program for the first size of a batch and one for all others; of each for training and validation, for layers
# with a window and without, for whole tiles: more than the 8 after which PyTorch would hold a table of all pairs.
config.recompile_limit = max(config.recompile_limit, 64)
compiled = torch.compile(flex_attention)


def attend(
    q: Tensor, k: Tensor, v: Tensor, *, queries: Layout, keys: Layout, causal: bool, window: int | None, bias: Bias
) -> Tensor:
    mask = _block_mask(queries, keys, causal, window)
    # The positions of one sequence are all a bias can depend on, so a table of them serves every pair of tokens.
    table = bias(torch.arange(queries.longest, device=q.device), torch.arange(keys.longest, device=q.device))

    def add_bias(score, batch, head, query, key):  # type: ignore[no-untyped-def]
        assert table is not None
        return score + table[head, queries.positions[query], keys.positions[key]]

    # On a CPU the compiled kernel has no backward; the uncompiled one is exact and lets tests run this code.
    run = compiled if q.is_cuda else flex_attention
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))  # (1, H, N, K)
    mixed = run(
        q, k, v, score_mod=None if table is None else add_bias, block_mask=mask, enable_gqa=q.shape[1] != k.shape[1]
    )
    return mixed[0].transpose(0, 1)


def _block_mask(queries: Layout, keys: Layout, causal: bool, window: int | None) -> BlockMask:
    name = ("block mask", causal, window)
    if name not in queries.scratch or queries.scratch[name][0] is not keys:
        query_sequence, key_sequence = queries.sequence, keys.sequence
        query_positions, key_positions = queries.positions, keys.positions

        def allowed(batch, head, query, key):  # type: ignore[no-untyped-def]
            distance = query_positions[query] - key_positions[key]
            seen = query_sequence[query] == key_sequence[key]
            if causal:
                seen = seen & (distance >= 0)
            if window is not None:
                seen = seen & (distance.abs() < window)
            return seen

        some, every = tiles(queries, keys, causal, window)
        lists = *_listed(some & ~every), *_listed(every)
        sizes = len(query_sequence), len(key_sequence)
        queries.scratch[name] = keys, BlockMask.from_kv_blocks(*lists, TILE, allowed, sizes)
    return queries.scratch[name][1]


def tiles(queries: Layout, keys: Layout, causal: bool, window: int | None) -> tuple[Tensor, Tensor]:
    """Of each tile whether some of its queries may see some of its keys, and whether all see all: both (Q, K).

    Worked out from the sequences at the ends of each tile, as a table of all pairs of tokens is large. `causal` and
    `window` are of texts that look at themselves, so that the distance of two tokens is that of their positions.
    """
    (query_first, query_last), (key_first, key_last) = _ends(queries), _ends(keys)
    some = (query_first[:, None] <= key_last) & (key_first <= query_last[:, None])
    every = some & (query_first == query_last)[:, None] & (key_first == key_last)
    rows, columns = (torch.arange(len(first), device=first.device) for first in (query_first, key_first))
    distance = TILE * (rows[:, None] - columns)  # of the first tokens; of others up to TILE - 1 more or less
    if causal:
        some, every = some & (distance >= 0), every & (distance > 0)
    if window is not None:
        some, every = some & (distance.abs() < window + TILE - 1), every & (distance.abs() <= window - TILE)
    return some, every


def _ends(layout: Layout) -> tuple[Tensor, Tensor]:
    """The sequences of the first and the last token of each tile; none has the number of what lies behind the end."""
    missing = -len(layout.positions) % TILE
    numbers = pad(layout.sequence, (0, missing), value=layout.num_sequences).unflatten(0, (-1, TILE))
    return numbers[:, 0], numbers[:, -1]


def _listed(marked: Tensor) -> tuple[Tensor, Tensor]:
    """How many tiles of each row are marked, (1, 1, Q), and which, those first: (1, 1, Q, K)."""
    order = marked.int().argsort(dim=-1, descending=True, stable=True)
    return marked.sum(-1, dtype=torch.int32)[None, None], order.int()[None, None]
