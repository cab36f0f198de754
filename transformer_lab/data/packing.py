"""How examples become units without padding: a stream cut into blocks, or whole pieces in packs.

A piece says in a few named numbers what a sequence is made of: where it begins and how long it is, which example, which
two segments. Pieces are a structured array, whose names a packing's task and its collate share.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import numpy as np

from transformer_lab.data.cache import fingerprint, obtain
from transformer_lab.data.sealed import Array, Sealed
from transformer_lab.data.store import Corpus

log = logging.getLogger(__name__)
WINDOW = 1 << 16  # examples considered at once when packing: keeps its memory flat


def piece(*names: str) -> np.dtype[np.void]:
    """The layout of a piece: an int64 under each name."""
    return np.dtype([(name, np.int64) for name in names])


EXAMPLE = piece("example")
SPAN = piece("start", "length")
SCORED_SPAN = piece("start", "length", "scored")  # how many tokens at its end count


class Packing(Protocol):
    """Units that a plan can shuffle, none of more than `capacity` tokens."""

    @property
    def corpus(self) -> Corpus: ...

    @property
    def capacity(self) -> int: ...

    @property
    def num_units(self) -> int: ...

    @property
    def num_tokens(self) -> int:
        """Of all units together, as the model reads them."""
        ...

    @property
    def num_truncated(self) -> int:
        """Examples that are longer than a sequence may be, so that the model does not see all of them."""
        ...

    def pieces(self, units: np.ndarray) -> np.ndarray:
        """The pieces of these units, by name: (P,)."""
        ...


@dataclass(frozen=True)
class Blocks:
    """A column of tokens as one stream, cut into blocks of `capacity` tokens; the last one holds what is left.

    A piece is a SPAN.
    """

    corpus: Corpus
    capacity: int
    num_truncated = 0

    @property
    def num_tokens(self) -> int:
        return self.corpus.num_tokens

    @property
    def num_units(self) -> int:
        return -(-self.num_tokens // self.capacity)

    def pieces(self, units: np.ndarray) -> np.ndarray:
        starts = units * self.capacity
        return np.rec.fromarrays((starts, np.minimum(self.capacity, self.num_tokens - starts)), dtype=SPAN)


@dataclass(frozen=True)
class Windows:
    """A column of tokens as one stream, read in windows of `capacity` tokens that each reach `stride` further.

    A piece is a SCORED_SPAN: those tokens are scored that no window before has reached.
    """

    corpus: Corpus
    capacity: int
    stride: int
    num_truncated = 0

    @property
    def num_tokens(self) -> int:
        return int(self.pieces(np.arange(self.num_units))["length"].sum())

    @property
    def num_units(self) -> int:
        return 1 + max(0, -(-(self.corpus.num_tokens - self.capacity) // self.stride))

    def pieces(self, units: np.ndarray) -> np.ndarray:
        total = self.corpus.num_tokens
        ends = np.minimum(self.capacity + units * self.stride, total)
        reached = np.where(units == 0, 0, self.capacity + (units - 1) * self.stride)
        starts = np.maximum(0, ends - self.capacity)
        return np.rec.fromarrays((starts, ends - starts, ends - reached), dtype=SCORED_SPAN)


# The pieces of the examples from one number up to another, how many tokens each has, and how many examples
# are not read whole: (P,), (P,) and a number.
Pieces = Callable[[Corpus, int, int], tuple[np.ndarray, np.ndarray, int]]


class Packs:
    """Pieces in packs of at most `capacity` tokens, packed by best fit, longest first (Johnson, 1973).

    `pieces` lists them in their `layout`, window by window of the corpus in its own order; `cache_key` says in words
    what it depends on, and `truncated` which examples are not read whole.
    The packs do not depend on the epoch; only their order does. They are kept beside the corpus and memory-mapped.
    """

    def __init__(
        self,
        *,
        corpus: Corpus,
        capacity: int,
        layout: np.dtype[np.void],
        pieces: Pieces,
        cache_key: str,
        truncated: str = "longer than task.context",
    ) -> None:
        self.corpus, self.capacity, self.layout = corpus, capacity, layout
        self._width = len(layout.names or ())
        if corpus.place is None:
            self._temporary = TemporaryDirectory()  # goes with this object
            folder = Path(self._temporary.name) / "packs"
        else:
            name = f"{corpus.place.name}.packs-{fingerprint({'cache_key': cache_key, 'capacity': capacity})}"
            folder = corpus.place.with_name(name)
        counts, self._pieces, self.offsets = obtain(folder, write=lambda empty: self._write(empty, pieces), read=_read)
        self.num_tokens, self.num_truncated = counts[:2]
        used = self.num_tokens / (self.num_units * capacity)
        sizes = f"{self.offsets[self.num_units]:,} pieces into {self.num_units:,} packs"
        if corpus.place is not None:  # else a few examples in memory
            log.info("Packed %s of %s tokens; %.2f%% of their room is unused", sizes, capacity, 100 * (1 - used))
        if self.num_truncated:
            log.info("%s examples are not read whole: %s", f"{self.num_truncated:,}", truncated)

    @property
    def num_units(self) -> int:
        return len(self.offsets) - 1

    def pieces(self, units: np.ndarray) -> np.ndarray:
        begins, ends = (offsets * self._width for offsets in (self.offsets[units], self.offsets[units + 1]))
        return self._pieces[ranges(begins, ends - begins)].view(self.layout)

    def _write(self, folder: Path, list_pieces: Pieces) -> None:
        written = tokens = truncated = 0
        with (folder / "pieces").open("wb") as pieces_file, (folder / "offsets").open("wb") as offsets_file:
            offsets_file.write(np.int64(0).tobytes())
            for begin in range(0, self.corpus.num_examples, WINDOW):
                pieces, lengths, more = list_pieces(self.corpus, begin, min(begin + WINDOW, self.corpus.num_examples))
                packs = _best_fit(lengths, self.capacity)
                order = np.array([piece for pack in packs for piece in pack], dtype=np.int64)
                pieces_file.write(pieces[order].astype(self.layout).tobytes())
                ends = written + np.cumsum([len(pack) for pack in packs], dtype=np.int64)
                offsets_file.write(ends.tobytes())
                written, tokens = written + len(order), tokens + int(lengths.sum())
                truncated += more
        (folder / "counts").write_bytes(np.array([tokens, truncated, self._width], dtype=np.int64).tobytes())


def _read(sealed: Sealed) -> tuple[list[int], Array, Array]:
    """The counts; the numbers of all pieces end to end; and where the pieces of each pack begin."""
    counts = np.frombuffer(sealed.read("counts"), dtype=np.int64).tolist()
    return counts, sealed.array("pieces", "int64"), sealed.array("offsets", "int64")


def ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """start, start + 1, …, start + length - 1 of every range, end to end: (sum of lengths,)."""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1]) + np.repeat(starts - (ends - lengths), lengths)


def examples_at(corpus: Corpus, places: np.ndarray, begins: np.ndarray) -> np.ndarray:
    """The example in which each place of the column "tokens" lies: (P,) -> (P,). Of a corpus of one example, parts of
    it stand for examples: those that begin at `begins`, each by where that is."""
    if corpus.num_examples == 1:
        return begins
    return np.searchsorted(corpus["tokens"].offsets[:], places, side="right") - 1


def cut_rows(offsets: np.ndarray, longest: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Whole rows, each as a SPAN; one of more than `longest` tokens becomes several."""
    row_lengths = np.diff(offsets)
    counts = -(-row_lengths // longest)
    within = ranges(np.zeros_like(counts), counts) * longest  # where each piece begins in its row
    starts = np.repeat(offsets[:-1], counts) + within
    lengths = np.minimum(longest, np.repeat(row_lengths, counts) - within)
    return np.rec.fromarrays((starts, lengths), dtype=SPAN), lengths, 0


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
