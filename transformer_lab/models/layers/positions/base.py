"""How a model learns about order: a scheme fills in one of three hooks, and each does nothing by default."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Position(nn.Module):
    """No order at all; the base of every scheme.

    A stack owns one scheme and hands it to its blocks, which call the hooks with the positions of their tokens. The
    stack also gives the scheme its own sizes, and whether it is `causal` (a decoder) or looks both ways (an encoder);
    `head_dim` only where it is not D / H, which None means.
    `max_length` is the longest sequence the scheme can serve; None where there is no limit.
    """

    max_length: int | None = None
    crosses: bool = False  # whether positions of two texts can be compared, so that cross-attention may use the scheme
    refusal: str = "this position scheme has no positions to compare between two texts"  # why not, in the user's words

    def __init__(self, *, dim: int, num_heads: int, causal: bool, head_dim: int | None = None) -> None:
        super().__init__()

    def keep_table(self, shape: tuple[int, ...], make: Callable[[], Tensor]) -> None:
        """Keep what `make` gives, of this shape, as the buffer `table`; made on the CPU, which has double precision.

        Of a model on the device "meta" the shape alone: PyTorch would import a compiler to find it out, for seconds.
        """
        here = torch.get_default_device()
        if here.type == "meta":
            table = torch.empty(shape)
        else:
            with torch.device("cpu"):
                table = make().float()
        self.register_buffer("table", table.to(here), persistent=False)

    def embed(self, x: Tensor, positions: Tensor) -> Tensor:
        """Add to the embeddings: x (N, D), positions (N,) -> (N, D)."""
        return x

    def rotate(self, x: Tensor, positions: Tensor) -> Tensor:
        """Turn queries or keys: x (N, H, K), positions (N,) -> (N, H, K)."""
        return x

    def bias(self, query_positions: Tensor, key_positions: Tensor) -> Tensor | None:
        """What is added to the scores of Q queries and K keys of one sequence: (H, Q, K), or None."""
        return None

    def local(self) -> "Position":
        """The scheme of the layers with a window; asked for once, by the stack that keeps it."""
        return self
