"""How documents become sequences without padding: a stream cut into blocks, or whole documents in packs.

Every sequence is read together with the token before it, so that its first token is predicted too; before the
first token of the corpus stands the end token. A sequence of t tokens so gives t inputs and t targets.
"""

import logging
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from transformer_lab.data.store import Corpus

log = logging.getLogger(__name__)
WINDOW = 1 << 16  # pieces considered at once when packing: keeps its memory flat


class Packing(Protocol):
    """Units that a plan can shuffle, none longer than `context` tokens."""

    @property
    def corpus(self) -> Corpus: ...

    @property
    def context(self) -> int: ...

    @property
    def num_units(self) -> int: ...

    def sequences(self, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where the sequences of these units begin in the corpus, and how long they are: two of (B,)."""
        ...


@dataclass(frozen=True)
class Blocks:
    """The corpus as one stream, cut into blocks of `context` tokens; the last one holds what is left."""

    corpus: Corpus
    context: int

    @property
    def num_units(self) -> int:
        return -(-len(self.corpus.tokens) // self.context)

    def sequences(self, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        starts = units * self.context
        return starts, np.minimum(self.context, len(self.corpus.tokens) - starts)


class Packs:
    """Whole documents in packs of at most `context` tokens; a longer document is cut into pieces of that length.

    Packed by best fit, longest first (Johnson, 1973), within windows of the corpus in its own order. The packs do not
    depend on the epoch; only their order does.
    """

    def __init__(self, *, corpus: Corpus, context: int) -> None:
        self.corpus, self.context = corpus, context
        starts, lengths = _pieces(corpus.offsets, context)
        order, pack_sizes = [], []
        for begin in range(0, len(starts), WINDOW):
            packs = _best_fit(lengths[begin : begin + WINDOW], context)
            order += [begin + piece for pack in packs for piece in pack]
            pack_sizes += [len(pack) for pack in packs]
        self.starts, self.lengths = starts[order], lengths[order]
        self.offsets = np.concatenate([[0], np.cumsum(pack_sizes)])  # (packs + 1,) into starts and lengths
        waste = 1 - lengths.sum() / (len(pack_sizes) * context)
        log.info("Packed %s pieces into %s packs of %s tokens, %.2f%% of them unused",
                 f"{len(starts):,}", f"{len(pack_sizes):,}", context, 100 * waste)  # fmt: skip

    @property
    def num_units(self) -> int:
        return len(self.offsets) - 1

    def sequences(self, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        picked = ranges(self.offsets[units], self.offsets[units + 1] - self.offsets[units])
        return self.starts[picked], self.lengths[picked]


def ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """start, start + 1, …, start + length - 1 of every range, end to end: (sum of lengths,)."""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1]) + np.repeat(starts - (ends - lengths), lengths)


def _pieces(offsets: np.ndarray, context: int) -> tuple[np.ndarray, np.ndarray]:
    document_lengths = np.diff(offsets)
    counts = -(-document_lengths // context)
    within = ranges(np.zeros_like(counts), counts) * context  # where each piece begins in its document
    starts = np.repeat(offsets[:-1], counts) + within
    return starts, np.minimum(context, np.repeat(document_lengths, counts) - within)


def _best_fit(lengths: np.ndarray, capacity: int) -> list[list[int]]:
    """Packs of piece numbers: each piece, longest first, goes where it leaves the least room."""
    packs: list[list[int]] = []
    open_packs: list[list[int]] = [[] for _ in range(capacity + 1)]  # by the room that is left
    rooms = 0  # bit r is set where a pack with room r is open: the best fit is the lowest set bit from `length` on
    for piece in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[piece])
        fitting = rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            pack = open_packs[room].pop()
            if not open_packs[room]:
                rooms &= ~(1 << room)
            packs[pack].append(piece)
        else:
            room, pack = capacity, len(packs)
            packs.append([piece])
        left = room - length
        open_packs[left].append(pack)
        rooms |= 1 << left
    return packs
