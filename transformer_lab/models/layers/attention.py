"""Multi-head attention (Vaswani et al., 2017, arXiv:1706.03762) with grouped keys and values (arXiv:2305.13245).

**N** tokens of a batch, **M** tokens of its memory, **D** width, **H** heads, **G** key/value heads, **K** head width.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from transformer_lab.layout import Layout, check_packed
from transformer_lab.models.layers.cache import CrossCache, LayerCache
from transformer_lab.models.layers.kernels import auto, reference
from transformer_lab.models.layers.kernels.reference import Bias
from transformer_lab.models.layers.positions.base import Position
from transformer_lab.models.layers.sublayer import Mixer

Kernel = Callable[..., Tensor]
Norm = Callable[..., nn.Module]  # called with dim=…


@dataclass(frozen=True)
class Memory:
    """What an encoder has made of a batch of texts, for a decoder to look at: hidden states (M, D)."""

    hidden: Tensor
    layout: Layout


class Attention(Mixer):
    """Tokens of a sequence look at each other; `kernel` does the looking (see `kernels/`).

    `num_kv_heads` are shared by the heads (Ainslie et al., 2023, arXiv:2305.13245); None: each has its own. `head_dim`
    is how wide a head is; None: D / H. `out_bias` says whether the output has a bias; None: where the others have.
    `norm` normalises queries and keys over each head (Henry et al., 2020, arXiv:2010.04245); None: not at all.
    `scale` multiplies the scores, besides the root of K that they are divided by. `window` limits how far a token sees
    (Beltagy et al., 2020, arXiv:2004.05150); None: all the way.
    """

    def __init__(
        self,
        *,
        dim: int,
        num_heads: int,
        num_kv_heads: int | None = None,
        head_dim: int | None = None,
        causal: bool = False,
        window: int | None = None,
        norm: Norm | None = None,
        bias: bool = False,
        out_bias: bool | None = None,
        kernel: Kernel = auto.attend,
        scale: float = 1.0,
    ) -> None:
        """Raises ValueError where heads do not divide the width, or key/value heads the heads."""
        super().__init__()
        num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        if num_heads < 1 or (head_dim is None and dim % num_heads):
            raise ValueError(f"num_heads: {num_heads} does not divide dim {dim}")
        if num_kv_heads < 1 or num_heads % num_kv_heads:
            raise ValueError(f"num_kv_heads: {num_kv_heads} does not divide num_heads {num_heads}")
        head_dim = dim // num_heads if head_dim is None else head_dim
        self.head_dim, self.num_kv_heads, self.scale = head_dim, num_kv_heads, scale
        self.causal, self.window, self.kernel = causal, window, kernel
        self.query = nn.Linear(dim, num_heads * head_dim, bias=bias)
        self.key = nn.Linear(dim, num_kv_heads * head_dim, bias=bias)
        self.value = nn.Linear(dim, num_kv_heads * head_dim, bias=bias)
        self.out = nn.Linear(num_heads * head_dim, dim, bias=bias if out_bias is None else out_bias)
        self.query_norm = norm(dim=head_dim) if norm else nn.Identity()
        self.key_norm = norm(dim=head_dim) if norm else nn.Identity()

    @property
    def output(self) -> nn.Linear:
        return self.out

    def new_cache(self, rows: int, like: Tensor) -> LayerCache:
        return LayerCache(rows=rows, num_heads=self.num_kv_heads, head_dim=self.head_dim, like=like)

    def extra_flops(self, x: Tensor, layout: Layout, *more: Any) -> float:
        """Of scores and sums: what must be looked at, so no padding, and half of all pairs where it is causal."""
        return self._flops_of(layout, layout)

    def _flops_of(self, queries: Layout, keys: Layout) -> float:
        own, other = _lengths(queries), _lengths(keys)
        if self.window is not None:
            pairs = own * other.clamp(max=self.window if self.causal else 2 * self.window - 1)
        else:
            pairs = own * other / (2 if self.causal else 1)
        return 4 * self.out.in_features * float(pairs.sum())  # two FLOPs each for its score and its value

    def queries(self, x: Tensor, layout: Layout, position: Position | None) -> Tensor:
        """(N, H, K), turned by their positions."""
        q = _turned(self.heads(self.query, x), self.query_norm, layout, position)
        return q if self.scale == 1 else q * self.scale

    def keys(self, x: Tensor, layout: Layout, position: Position | None) -> Tensor:
        """(N, G, K), turned by their positions."""
        return _turned(self.heads(self.key, x), self.key_norm, layout, position)

    def heads(self, part: nn.Linear, x: Tensor) -> Tensor:
        return part(x).view(x.shape[0], -1, self.head_dim)  # (N, H, K)

    def forward(
        self, x: Tensor, layout: Layout, position: Position | None = None, cache: LayerCache | None = None
    ) -> Tensor:
        q, k, bias = self._scored(x, layout, position)
        v = self.heads(self.value, x)
        continues = cache is not None and cache.filled > 0
        if cache is not None:
            cache.write(k, v, layout)
        if cache is not None and continues:
            mixed = cache.attend(q, layout.positions, window=self.window, bias=bias)
        else:
            rules = {"causal": self.causal, "window": self.window, "bias": bias}
            mixed = self.kernel(q, k, v, queries=layout, keys=layout, **rules)
        return self.out(mixed.flatten(1))  # (N, D)

    def _scored(self, x: Tensor, layout: Layout, position: Position | None) -> tuple[Tensor, Tensor, Bias]:
        """Queries (N, H, K) and keys (N, G, K), and what is added to their scores."""
        check_packed(x, 2, "x")
        q, k = self.queries(x, layout, position), self.keys(x, layout, position)
        return q, k, _no_bias if position is None else position.bias

    def attention_weights(self, x: Tensor, layout: Layout, position: Position | None = None) -> Tensor:
        """How much each token looks at each other one: (H, N, N), rows sum to 1; zero between sequences."""
        q, k, bias = self._scored(x, layout, position)
        return reference.weights(q, k, queries=layout, keys=layout, causal=self.causal, window=self.window, bias=bias)


class CrossAttention(Attention):
    """Tokens of one text look at another: sequence i of the layout sees sequence i of the memory, all of it."""

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        layout: Layout,
        position: Position | None,
        memory: Memory | None = None,
        cache: CrossCache | None = None,
    ) -> Tensor:
        """`position` turns queries and keys where a scheme says something about two texts; None: it does not.

        The memory is read once: a `cache` keeps its keys and values, and later calls need no `memory`.
        """
        q = self.queries(x, layout, position)
        if memory is not None:
            k, v = self.keys(memory.hidden, memory.layout, position), self.heads(self.value, memory.hidden)
            if cache is None:
                rules = {"causal": False, "window": None, "bias": _no_bias}
                mixed = self.kernel(q, k, v, queries=layout, keys=memory.layout, **rules)
                return self.out(mixed.flatten(1))
            cache.write(k, v, memory.layout)
        assert cache is not None
        return self.out(cache.attend(q).flatten(1))

    def extra_flops(self, x: Tensor, layout: Layout, *more: Any) -> float:
        memory: Memory = more[1]
        return self._flops_of(layout, memory.layout)


def _turned(x: Tensor, norm: nn.Module, layout: Layout, position: Position | None) -> Tensor:
    """Normalised and turned by positions: (N, heads, K)."""
    # Both are worked out in single precision: to stay there in between spares passes where nothing is compiled.
    turned = norm(x.float() if x.device.type == "cpu" and not isinstance(norm, nn.Identity) else x)
    if position is not None:
        turned = position.rotate(turned, layout.positions)
    return turned.to(x.dtype)


def _lengths(layout: Layout) -> Tensor:
    """… of its sequences; of one without numbers, where they were noted."""
    known: Tensor = layout.scratch.get("lengths", layout.lengths)
    return known.double()


@contextmanager
def kernels_of(model: nn.Module, kernel: Callable[[Attention], Kernel]) -> Iterator[None]:
    """For as long as this lasts, each attention of a model looks with the kernel that it is given here."""
    modules = [module for module in model.modules() if isinstance(module, Attention)]
    before = [module.kernel for module in modules]
    try:
        for module in modules:
            module.kernel = kernel(module)
        yield
    finally:
        for module, own in zip(modules, before, strict=True):
            module.kernel = own


def _no_bias(query_positions: Tensor, key_positions: Tensor) -> None:
    return None
