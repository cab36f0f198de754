"""Where each sequence of a packed batch lies: sequences are laid end to end, and no token is padding.

**N** tokens of a batch, **B** sequences, **T** length of a sequence.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Layout:
    """`B` sequences laid end to end; build one with `Layout.of(lengths)`.

    `scratch` is where attention kernels keep what they worked out about this batch, so that the second layer
    need not work it out again.
    """

    offsets: Tensor  # (B+1,) int32, where each sequence begins; offsets[-1] == N
    longest: int
    positions: Tensor  # (N,) int64, the place of each token in its own sequence
    scratch: dict[Any, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, lengths: Sequence[int] | Tensor) -> "Layout":
        """Lay out sequences of these lengths, each at least 1."""
        # By NumPy, as it wakes no threads for arrays as small as these.
        sizes = np.asarray(lengths, dtype=np.int64)
        offsets = np.concatenate(([0], np.cumsum(sizes)))
        positions = np.arange(offsets[-1]) - np.repeat(offsets[:-1], sizes)
        return cls(torch.from_numpy(offsets.astype(np.int32)), int(sizes.max()), torch.from_numpy(positions))

    @property
    def num_sequences(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Tensor:  # (B,)
        return self.offsets.diff()

    @property
    def equal(self) -> bool:
        """Whether all sequences are of one length, so that `(N, …)` is a view of `(B, T, …)`."""
        return len(self.positions) == self.num_sequences * self.longest

    @property
    def sequence(self) -> Tensor:
        """Which sequence each token belongs to: (N,)."""
        if "sequence" not in self.scratch:
            ids = torch.arange(self.num_sequences, device=self.offsets.device)
            self.scratch["sequence"] = ids.repeat_interleave(self.lengths, output_size=len(self.positions))
        return self.scratch["sequence"]

    def sums(self, values: Tensor, tokens: Tensor | None = None) -> Tensor:
        """Of each sequence, the values of its tokens added up, or of those of the `tokens`: (N, …) -> (B, …)."""
        sequence = self.sequence if tokens is None else self.sequence[tokens]
        return values.new_zeros(self.num_sequences, *values.shape[1:]).index_add_(0, sequence, values)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Layout":
        if self.offsets.device == torch.device(device):
            return self
        offsets, positions = (x.to(device, non_blocking=non_blocking) for x in (self.offsets, self.positions))
        return Layout(offsets, self.longest, positions)

    def pin_memory(self) -> "Layout":
        return Layout(self.offsets.pin_memory(), self.longest, self.positions.pin_memory())


def check_packed(x: Tensor, ndim: int, name: str) -> None:
    """Raises ValueError for what does not lie end to end: tokens (N,), of `ndim` 1, or their states (N, D), of 2."""
    if x.ndim == ndim:
        return
    expected, flatten = ("(N,)", "flatten()") if ndim == 1 else ("(N, D)", "flatten(0, 1)")
    hint = ""
    if x.ndim == ndim + 1:
        hint = f"; {name}.{flatten} with Layout.of([{x.shape[1]}] * {x.shape[0]}) lays them so"
    raise ValueError(f"{name}: sequences lie end to end, {expected}, and this has the shape {tuple(x.shape)}{hint}")
