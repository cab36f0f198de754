"""An encoder reads one text, a decoder writes another (Vaswani et al., 2017, arXiv:1706.03762).

**M** source tokens of a batch, **N** target tokens, **D** width.
"""

from typing import Any, Unpack

from torch import Tensor, nn

from transformer_lab.layout import Layout, check_packed
from transformer_lab.models.layers.attention import Memory
from transformer_lab.models.layers.cache import Cache
from transformer_lab.models.layers.positions.base import Position
from transformer_lab.models.model import Model
from transformer_lab.models.stack import Stack, StackOptions, embedding


class Seq2Seq(Model):
    """Two texts in, hidden states of the second out: (M,), (N,) -> (N, D). Options are those of `Stack`.

    `num_layers` counts the blocks of either side, unless `num_decoder_layers` says otherwise for the second. One
    vocabulary serves both; with `share_embeddings` one table does, too. `scale_embedding` multiplies embeddings by
    the root of D (Vaswani et al., 2017, section 3.4).
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        num_layers: int,
        num_decoder_layers: int | None = None,
        share_embeddings: bool = True,
        scale_embedding: bool = False,
        cross_position: bool = False,
        **stack: Unpack[StackOptions],
    ) -> None:
        super().__init__()
        if num_decoder_layers is not None and num_decoder_layers < 1:
            raise ValueError(f"model.num_decoder_layers: {num_decoder_layers} is too small; at least 1")
        self.encoder = Stack(causal=False, cross=False, num_layers=num_layers, **stack)
        self.decoder = Stack(
            causal=True, cross=True, cross_position=cross_position, num_layers=num_decoder_layers or num_layers, **stack
        )
        self.dim, self.head_dim = self.encoder.dim, self.encoder.head_dim
        self.width_ratio = self.encoder.width_ratio

        def table() -> nn.Embedding:
            return embedding(
                vocab_size,
                self.dim,
                scaled=scale_embedding,
                residual_init=self.encoder.residual_init,
                width_ratio=self.width_ratio,
            )

        self.embedding = table()  # of what is written, and read unless:
        self.source_embedding = None if share_embeddings else table()
        self.scale = (self.dim / self.width_ratio) ** 0.5 if scale_embedding else 1.0

    @property
    def position(self) -> Position:  # type: ignore[override]
        return self.decoder.position

    def encode(self, source: Tensor, layout: Layout) -> Memory:
        check_packed(source, 1, "source")
        x = (self.embedding if self.source_embedding is None else self.source_embedding)(source)
        return Memory(self.encoder.run(x * self.scale, layout), layout)

    def decode(
        self, target: Tensor, layout: Layout, memory: Memory | None = None, cache: Cache | None = None
    ) -> Tensor:
        """Hidden states of target tokens: (N,) -> (N, D). With a cache, the memory is needed the first time only."""
        check_packed(target, 1, "target")
        return self.decoder.run(self.embedding(target) * self.scale, layout, memory, cache)

    def forward(self, source: Tensor, source_layout: Layout, target: Tensor, target_layout: Layout) -> Tensor:
        return self.decode(target, target_layout, self.encode(source, source_layout))

    def checkpoint_activations(self) -> None:
        """See `Stack.checkpoint_activations`."""
        self.encoder.checkpoint_activations()
        self.decoder.checkpoint_activations()

    def compile(self, *args: Any, **options: Any) -> None:
        """See `Stack.compile`."""
        self.encoder.compile(*args, **options)
        self.decoder.compile(*args, **options)

    def new_cache(self, rows: int) -> Cache:
        return self.decoder.new_cache(rows)
