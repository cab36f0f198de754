"""The core that encoder, decoder and seq2seq share: blocks over packed tokens, with one position scheme.

**N** tokens of a batch, **D** width.
"""

from collections.abc import Callable
from typing import Any, Literal, Required, TypedDict

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from transformer_lab.layout import Layout
from transformer_lab.models.blocks import Block, PreNorm, Residual
from transformer_lab.models.layers.attention import Attention, CrossAttention, Kernel, Memory, Norm
from transformer_lab.models.layers.cache import Cache, CrossCache
from transformer_lab.models.layers.dropout import Dropout
from transformer_lab.models.layers.feed_forward import SquaredReLU
from transformer_lab.models.layers.kernels import auto, groups, matmul
from transformer_lab.models.layers.norms import RMSNorm
from transformer_lab.models.layers.positions.base import Position
from transformer_lab.models.layers.positions.rotary import Rotary
from transformer_lab.models.layers.sublayer import Mixer, SubLayer

MOST_LAYERS = 10_000  # ten times as many as anybody has trained: a slip of the hand would take minutes to build
BASE_DIM, BASE_HEAD_DIM = 128, 32  # the widths that muP measures others by: those of the shipped models


class StackOptions(TypedDict, total=False):
    """What a model takes for its stacks, besides how many blocks there are."""

    dim: Required[int]
    num_heads: Required[int]
    position: Callable[..., Position]
    norm: Norm
    feed_forward: Callable[..., SubLayer]
    residual: type[Residual]
    attention: Kernel
    mixer: Callable[..., Mixer]
    num_kv_heads: int | None
    head_dim: int | None
    window: int | None
    global_every: int | None
    global_first: int
    qk_norm: bool
    embedding_norm: bool
    bias: bool
    out_bias: bool | None
    dropout: float
    residual_init: Literal["zero", "scaled", "plain"]
    mup: bool


class Stack(nn.Module):
    """Embedded tokens in, hidden states out: (N, D) -> (N, D).

    `position`, `norm`, `mixer`, `feed_forward`, `residual` are called with the sizes of the stack and give its parts;
    `attention` is the kernel of those mixers that attend. With `cross`, each block also looks at a memory; with
    `cross_position`, positions of both texts count there. Of layers with a `window`, every `global_every`th sees
    everything, from layer `global_first` on (ModernBERT; Gemma Team, 2024). `embedding_norm` normalises what the first
    block reads (BERT). `head_dim` is the width of a head where it is not D / H, and `out_bias` says whether what
    attention gives has a bias where `bias` says else; only then are they handed to the parts.

    Matrices start normal with variance 1 / fan-in (LeCun et al., 1998). What a block adds to the residual stream
    starts at zero (ReZero; Bachlechner et al., 2021); with `residual_init: scaled` smaller by the root of the number
    of additions (GPT-2); with `plain` as it is (post-norm stacks).

    With `mup`, what learns well at one width does at others (maximal update parametrization; Yang et al., 2022,
    arXiv:2203.03466, table 8): widths count as multiples of BASE_DIM, where a model is the same without it.
    `width_ratio` says which multiple; heads divide by it, and optimizers the rates of matrices.

    Raises ValueError where the sizes do not fit each other.
    """

    def __init__(
        self,
        *,
        dim: int,
        num_layers: int,
        num_heads: int,
        position: Callable[..., Position] = Rotary,
        norm: Norm = RMSNorm,
        feed_forward: Callable[..., SubLayer] = SquaredReLU,
        residual: type[Residual] = PreNorm,
        attention: Kernel = auto.attend,
        mixer: Callable[..., Mixer] = Attention,
        causal: bool,
        cross: bool = False,
        cross_position: bool = False,
        num_kv_heads: int | None = None,
        head_dim: int | None = None,
        window: int | None = None,
        global_every: int | None = None,
        global_first: int = 0,
        qk_norm: bool = False,
        embedding_norm: bool = False,
        bias: bool = False,
        out_bias: bool | None = None,
        dropout: float = 0.0,
        residual_init: Literal["zero", "scaled", "plain"] = "zero",
        mup: bool = False,
    ) -> None:
        super().__init__()
        num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        _check_sizes(dim, num_layers, num_heads, num_kv_heads, head_dim, window, global_every, global_first, dropout)
        self.head_dim = dim // num_heads if head_dim is None else head_dim
        self.dim, self.cross, self.bias, self.make_norm = dim, cross, bias, norm
        self.residual_init = residual_init
        self.width_ratio = dim / BASE_DIM if mup else 1.0
        # Queries and keys that point the same way add up with the head's width, not with its root.
        scale = (BASE_HEAD_DIM / self.head_dim) ** 0.5 if mup else 1.0
        width = {} if head_dim is None else {"head_dim": head_dim}
        self.position = position(dim=dim, num_heads=num_heads, causal=causal, **width)
        if cross_position and not self.position.crosses:
            raise ValueError(f"model.cross_position: {self.position.refusal}; leave it false")
        self.cross_position = cross_position
        near = self.position.local()
        self.local_position = near if near is not self.position else None
        self.embedding_norm = norm(dim=dim) if embedding_norm else nn.Identity()
        self.dropout = Dropout(dropout)
        sizes: dict[str, Any] = {
            "dim": dim,
            "num_heads": num_heads,
            "num_kv_heads": num_kv_heads,
            "bias": bias,
            "kernel": attention,
            "norm": norm if qk_norm else None,
            "scale": scale,
            **width,
            **({} if out_bias is None else {"out_bias": out_bias}),
        }

        def around(layer: SubLayer, option: str) -> Residual:
            if not isinstance(layer, SubLayer):
                raise ValueError(
                    f"{option}._target_: {type(layer).__name__} is not a SubLayer (models/layers/sublayer.py)"
                )
            return residual(dim=dim, layer=layer, norm=norm, dropout=dropout)

        def block(index: int) -> Block:
            sees_all = global_every is not None and index % global_every == global_first
            own = mixer(causal=causal, window=None if sees_all else window, **sizes)
            other = CrossAttention(causal=False, window=None, **sizes) if cross else None
            return Block(
                attention=around(own, "mixer"),
                cross_attention=around(other, "mixer") if other else None,
                feed_forward=around(feed_forward(dim=dim), "feed_forward"),
            )

        blocks = [block(index) for index in range(num_layers)]
        self.blocks = nn.ModuleList(blocks)
        self.checkpoints_activations = False
        last = blocks[-1].feed_forward
        self.norm = norm(dim=dim) if last.final_norm else nn.Identity()
        if embedding_norm and last.final_norm:  # what has just been normalised need not be once more
            blocks[0].attention.norm = nn.Identity()
        every = [part for block in blocks for part in block.residuals]
        for part in every:
            part.initialise({"zero": 0.0, "scaled": len(every) ** -0.5, "plain": 1.0}[residual_init])

    def run(
        self,
        x: Tensor,
        layout: Layout,
        memory: Memory | None = None,
        cache: Cache | None = None,
        indices: Tensor | None = None,
    ) -> Tensor:
        """From embeddings to hidden states: (N, D) -> (N, D). A cache that holds a memory's keys needs no memory.

        With `indices` (R,) only the states of these tokens are given, (R, D), and the last block's feed-forward layer
        spares the others.
        """
        limit = self.position.max_length
        if limit is not None and layout.longest > limit:
            raise ValueError(f"a sequence of {layout.longest} tokens is longer than the {limit} that `position` serves")
        x = self.position.embed(x, layout.positions)
        x = self.dropout(self.embedding_norm(x))
        across = self.position if self.cross_position else None
        for index, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            windowed = getattr(block.attention.layer, "window", None) is not None
            position = self.local_position if windowed and self.local_position is not None else self.position
            layer = cache.layers[index] if cache else None
            other = cache.cross[index] if cache and cache.cross else None
            read = indices if block is self.blocks[-1] else None
            if cache:  # `forward` itself: lengths that grow are no work for a compiler
                x = block.forward(x, layout, position, across, memory, layer, other, read)
            elif self.checkpoints_activations and torch.is_grad_enabled():
                x = checkpoint(block, x, layout, position, across, memory, indices=read, use_reentrant=False)
            else:
                x = block(x, layout, position, across, memory, indices=read)
        if cache:
            cache.count(layout)
        return self.norm(x)

    def checkpoint_activations(self) -> None:
        """From now on keep of each block only what it reads, and compute the rest again in the backward pass: memory
        for a third more time (activation checkpointing; Chen et al., 2016, arXiv:1604.06174)."""
        self.checkpoints_activations = True

    def compile(self, *args: Any, **options: Any) -> None:
        """From now on run compiled blocks; the options are those of `torch.compile`. They share their code, so it is
        compiled once, not once for each."""
        from torch._dynamo import config  # slow to import

        # Programs: for training and for validation, for sequences of one length and of many, for the last block and for
        # those before it. PyTorch would give up at 8.
        config.recompile_limit = max(config.recompile_limit, 64)
        groups.stay_uncompiled()
        matmul.stay_uncompiled()
        for block in self.blocks:
            block.compile(*args, **options)

    def new_cache(self, rows: int) -> Cache:
        """An empty cache for `rows` sequences."""
        like: Tensor = next(self.blocks.parameters())
        if torch.is_autocast_enabled(like.device.type):
            like = like.new_empty(0, dtype=torch.get_autocast_dtype(like.device.type))  # what keys and values come in
        layers = [block.attention.layer.new_cache(rows, like) for block in self.blocks]  # type: ignore[union-attr, operator]
        cross = [CrossCache() for _ in self.blocks] if self.cross else []
        return Cache(layers, cross, rows=rows, device=like.device)


def embedding(vocab_size: int, dim: int, *, scaled: bool, residual_init: str, width_ratio: float = 1.0) -> nn.Embedding:
    """A table of vectors, normal with deviation 0.02 (GPT-2), or D^-0.5 where they are multiplied by its inverse.

    Where blocks add nothing at first, a tied output sees the bare embedding: were that large, the first guess would
    be the token itself. With 2.56 / D, its logit starts at 2.56 in any width. With muP the deviation is that of the
    base width.
    """
    table = nn.Embedding(vocab_size, dim)
    width = dim / width_ratio
    small = min(0.02, 2.56 / width) if residual_init == "zero" else 0.02
    nn.init.normal_(table.weight, std=width**-0.5 if scaled else small)
    return table


def _check_sizes(
    dim: int,
    num_layers: int,
    num_heads: int,
    num_kv_heads: int,
    head_dim: int | None,
    window: int | None,
    global_every: int | None,
    global_first: int,
    dropout: float,
) -> None:
    for name, size in (("dim", dim), ("num_layers", num_layers), ("num_heads", num_heads)):
        if size < 1:
            raise ValueError(f"model.{name}: {size} is too small; at least 1")
    if num_layers > MOST_LAYERS:
        raise ValueError(f"model.num_layers: {num_layers} is too many; at most {MOST_LAYERS:,}")
    if head_dim is not None and head_dim < 1:
        raise ValueError(f"model.head_dim: {head_dim} is too small; null for model.dim / model.num_heads")
    if head_dim is None and dim % num_heads:
        nearest = max(1, round(dim / num_heads / 2)) * 2 * num_heads  # rotary turns pairs of a head's channels
        raise ValueError(f"model.dim: {dim} is not divisible by model.num_heads {num_heads}; nearest {nearest}")
    if num_kv_heads < 1 or num_heads % num_kv_heads:
        divisors = [n for n in range(1, num_heads + 1) if num_heads % n == 0]
        raise ValueError(
            f"model.num_kv_heads: {num_kv_heads} does not divide model.num_heads {num_heads}; one of {divisors} does"
        )
    if window is not None and window < 1:
        raise ValueError(f"model.window: {window} is too small; a token sees at least itself (1)")
    if global_every is not None and (global_every < 1 or window is None):
        why = "has no effect without model.window" if window is None else f"{global_every} is too small; at least 1"
        raise ValueError(f"model.global_every: {why}")
    if not 0 <= global_first < (global_every or 1):
        raise ValueError(
            f"model.global_first: layer {global_first} is not among the first model.global_every, {global_every or 1}, "
            "counted from 0"
        )
    if not 0 <= dropout < 1:
        raise ValueError(f"model.dropout: {dropout} is not a share; 0 <= dropout < 1")
