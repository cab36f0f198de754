"""A causal stack: each token sees itself and what came before it (GPT; Radford et al., 2019).

**N** tokens of a batch, **D** width, **H** heads.
"""

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

from transformer_lab.layout import Layout
from transformer_lab.models.blocks import PreNormBlock
from transformer_lab.models.layers.attention import Attention, Kernel, Norm
from transformer_lab.models.layers.cache import Cache, LayerCache
from transformer_lab.models.layers.feed_forward import FeedForward
from transformer_lab.models.layers.positions.base import Position


class Decoder(nn.Module):
    """Tokens in, hidden states out: (N,) -> (N, D); heads belong to the tasks.

    `position`, `norm`, `feed_forward` are called with the sizes of the stack and give its parts; `attention` is a
    kernel. Matrices start normal with variance 1 / fan-in (LeCun et al., 1998), embeddings with deviation 0.02
    (GPT-2). What a block adds to the residual stream starts at zero (ReZero; Bachlechner et al., 2021), or with
    `residual_init: scaled` smaller by the root of the number of additions (GPT-2).

    Raises ValueError where the sizes do not fit each other.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        dim: int,
        num_layers: int,
        num_heads: int,
        position: type[Position],
        norm: Norm,
        feed_forward: Callable[..., FeedForward],
        attention: Kernel,
        num_kv_heads: int | None = None,
        window: int | None = None,
        qk_norm: bool = False,
        bias: bool = False,
        dropout: float = 0.0,
        residual_init: Literal["zero", "scaled"] = "zero",
    ) -> None:
        super().__init__()
        num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        _check_sizes(dim, num_layers, num_heads, num_kv_heads, window, dropout)
        self.dim = dim
        self.embedding = nn.Embedding(vocab_size, dim)
        self.position = position(dim=dim, num_heads=num_heads)
        self.dropout = nn.Dropout(dropout)
        blocks = [
            PreNormBlock(
                attention=Attention(
                    dim=dim,
                    num_heads=num_heads,
                    num_kv_heads=num_kv_heads,
                    causal=True,
                    window=window,
                    norm=norm if qk_norm else None,
                    bias=bias,
                    kernel=attention,
                ),
                attention_norm=norm(dim=dim),
                feed_forward=feed_forward(dim=dim),
                feed_forward_norm=norm(dim=dim),
                dropout=dropout,
            )
            for _ in range(num_layers)
        ]
        self.blocks = nn.ModuleList(blocks)
        self.norm = norm(dim=dim)
        self.cache_shape = {"num_heads": num_kv_heads, "head_dim": dim // num_heads}
        # Where blocks add nothing at first, a tied output sees the bare embedding: were that large, the first guess
        # would be the token itself. With this, its logit starts at 2.56 in any width.
        nn.init.normal_(self.embedding.weight, std=min(0.02, 2.56 / dim) if residual_init == "zero" else 0.02)
        for block in blocks:
            block.initialise(residual=0.0 if residual_init == "zero" else (2 * num_layers) ** -0.5)

    def forward(self, tokens: Tensor, layout: Layout, cache: Cache | None = None) -> Tensor:
        limit = self.position.max_length
        if limit is not None and layout.longest > limit:
            raise ValueError(f"a sequence of {layout.longest} tokens is longer than the {limit} that `position` serves")
        x = self.dropout(self.position.embed(self.embedding(tokens), layout.positions))  # (N, D)
        for index, block in enumerate(self.blocks):
            x = block(x, layout, self.position, cache.layers[index] if cache else None)
        if cache:
            cache.lengths = cache.lengths + layout.lengths
        return self.norm(x)

    def new_cache(self, rows: int, capacity: int) -> Cache:
        """An empty cache for `rows` sequences of at most `capacity` tokens."""
        like = self.embedding.weight
        return Cache([LayerCache(rows=rows, capacity=capacity, like=like, **self.cache_shape) for _ in self.blocks])


def _check_sizes(dim: int, num_layers: int, num_heads: int, num_kv_heads: int, window: int | None,
                 dropout: float) -> None:  # fmt: skip
    for name, size in (("dim", dim), ("num_layers", num_layers), ("num_heads", num_heads)):
        if size < 1:
            raise ValueError(f"model.{name}: {size} is too small; at least 1")
    if dim % num_heads:
        nearest = max(1, round(dim / num_heads)) * num_heads
        raise ValueError(f"model.dim: {dim} is not divisible by model.num_heads {num_heads}; nearest {nearest}")
    if num_kv_heads < 1 or num_heads % num_kv_heads:
        divisors = [n for n in range(1, num_heads + 1) if num_heads % n == 0]
        raise ValueError(f"model.num_kv_heads: {num_kv_heads} does not divide model.num_heads {num_heads}; "
                         f"one of {divisors} does")  # fmt: skip
    if window is not None and window < 1:
        raise ValueError(f"model.window: {window} is too small; a token sees at least itself (1)")
    if not 0 <= dropout < 1:
        raise ValueError(f"model.dropout: {dropout} is not a share; 0 <= dropout < 1")
