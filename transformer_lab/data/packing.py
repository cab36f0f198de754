"""How documents become sequences without padding: a stream cut into blocks, or whole documents in packs.

Every sequence is read together with the token before it, so that its first token is predicted too; before the
first token of the corpus stands the end token. A sequence of t tokens so gives t inputs and t targets.
"""

import logging
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import numpy as np

from transformer_lab.data.store import Corpus, build_beside

log = logging.getLogger(__name__)
WINDOW = 1 << 16  # documents considered at once when packing: keeps its memory flat
FILES = ("starts", "lengths", "offsets")


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
    depend on the epoch; only their order does. They are kept beside the corpus and memory-mapped.
    """

    def __init__(self, *, corpus: Corpus, context: int) -> None:
        self.corpus, self.context = corpus, context
        if corpus.place is None:
            self._temporary = TemporaryDirectory()  # goes with this object
            folder = Path(self._temporary.name) / "packs"
        else:
            folder = corpus.place.with_name(f"{corpus.place.name}.packs-{context}")
        if not folder.exists():
            build_beside(folder, self._write)
        # Per piece where it begins and how long it is; per pack where its pieces begin, and where the last one's end.
        self.starts, self.lengths, self.offsets = (np.memmap(folder / name, dtype=np.int64, mode="r") for name in FILES)
        used = len(corpus.tokens) / (self.num_units * context)
        log.info("Packed %s pieces into %s packs of %s tokens; %.2f%% of their room is unused",
                 f"{len(self.starts):,}", f"{self.num_units:,}", context, 100 * (1 - used))  # fmt: skip

    @property
    def num_units(self) -> int:
        return len(self.offsets) - 1

    def sequences(self, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        picked = ranges(self.offsets[units], self.offsets[units + 1] - self.offsets[units])
        return self.starts[picked], self.lengths[picked]

    def _write(self, folder: Path) -> None:
        with ExitStack() as stack:
            starts_file, lengths_file, offsets_file = (stack.enter_context(open(folder / name, "wb")) for name in FILES)
            offsets_file.write(np.int64(0).tobytes())
            written = 0
            for begin in range(0, self.corpus.num_documents, WINDOW):
                starts, lengths = _pieces(self.corpus.offsets[begin : begin + WINDOW + 1], self.context)
                packs = _best_fit(lengths, self.context)
                order = np.array([piece for pack in packs for piece in pack])
                starts_file.write(starts[order].tobytes())
                lengths_file.write(lengths[order].tobytes())
                ends = written + np.cumsum([len(pack) for pack in packs])
                offsets_file.write(ends.tobytes())
                written += len(order)


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
