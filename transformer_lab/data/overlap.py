"""Examples that two splits share, exactly or up to case and space: a score on them is no score."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from transformer_lab.data.examples import Example, Split, folded

AT_ONCE = 1 << 20  # hashes of a split looked at together: keeps memory flat
PAIRS: tuple[tuple[Split, Split], ...] = (("validation", "train"), ("test", "train"), ("test", "validation"))


@dataclass(frozen=True)
class Overlap:
    """How many of the `examples` of a split also stand in `other`: as they are, and up to case and space."""

    split: Split
    other: Split
    examples: int
    exact: int
    folded: int

    @property
    def share(self) -> float:
        return self.folded / self.examples

    def __str__(self) -> str:
        alike = f", {self.folded - self.exact:,} more up to case and space" if self.folded > self.exact else ""
        return (
            f"{self.exact:,} of the {self.examples:,} examples of the {self.split} split also stand in the "
            f"{self.other} split{alike} ({self.share:.1%})"
        )


class Hashes:
    """Writes two hashes of 64 bits for each example of a split, while it is read."""

    def __init__(self, folder: Path, split: Split) -> None:
        self.file = _file(folder, split).open("wb")
        self._begin()

    def _begin(self) -> None:
        self.exact, self.folded = (hashlib.blake2b(digest_size=8) for _ in range(2))

    def add(self, example: Example) -> None:
        for text in example.texts:
            self.exact.update(text.encode() + b"\0")
            self.folded.update(" ".join([*folded(text), ""]).encode() + b"\0")
        if not example.more:
            self.file.write(self.exact.digest() + self.folded.digest())
            self._begin()

    def close(self) -> None:
        self.file.close()


def overlaps(folder: Path, splits: Sequence[Split]) -> list[Overlap]:
    """What the splits whose hashes lie in the folder share; the hashes are deleted."""
    found = []
    for split, other in PAIRS:
        if split in splits and other in splits:
            own = _read(folder, split)
            shared = np.zeros(own.shape, dtype=bool)
            there = _read(folder, other)
            for begin in range(0, len(there), AT_ONCE):
                for kind in (0, 1):
                    shared[:, kind] |= np.isin(own[:, kind], there[begin : begin + AT_ONCE, kind])
            exact, folded = (int(x) for x in shared.sum(0))
            if folded:
                found.append(Overlap(split, other, len(own), exact, folded))
    for split in splits:
        _file(folder, split).unlink()
    return found


def _file(folder: Path, split: Split) -> Path:
    return folder / f"{split}.hashes"


def _read(folder: Path, split: Split) -> np.ndarray:  # (examples, 2)
    return np.memmap(_file(folder, split), dtype=np.uint64, mode="r").reshape(-1, 2)
