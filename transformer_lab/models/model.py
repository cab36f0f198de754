"""What a model is to the rest: what tasks, optimizers and pictures ask of it, besides its `forward`.

**V** tokens of the vocabulary, **D** width.
"""

from abc import ABC, abstractmethod

from torch import nn

from transformer_lab.models.layers.cache import Cache
from transformer_lab.models.layers.positions.base import Position


class Model(nn.Module, ABC):
    """`Encoder`, `Decoder` and `Seq2Seq` are such, and all that a section `model` may name.

    It is built with its options, with `vocab_size`, and with what builds its parts: `position`, `norm`, `mixer`,
    `feed_forward`, `residual` and `attention`. What its `forward` takes is a matter of the tasks that train it.
    """

    embedding: nn.Embedding  # of what is written, (V, D)
    position: Position
    dim: int  # D
    head_dim: int  # of each attention head
    width_ratio: float  # how many times wider than where its learning rate was found (muP); 1.0: as wide

    @abstractmethod
    def new_cache(self, rows: int) -> Cache:
        """An empty cache for `rows` sequences, with which `forward` reads new tokens only."""

    def checkpoint_activations(self) -> None:
        """From now on compute activations again in the backward pass, rather than keep them."""
        raise ValueError(f"hardware.activation_checkpointing: {type(self).__name__} keeps all; leave it false")
