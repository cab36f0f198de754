"""Documents as sentences, and pairs of segments made of them, as BERT was pre-trained on (Devlin et al., 2019,
arXiv:1810.04805, appendix A.2, and the data preparation that was published with it).

A segment is a stretch of sentences that follow each other, so it is known by where its tokens begin and how many they
are. Where a pair is full a sentence may be cut; the next pair then begins with the rest of it.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Literal

import numpy as np

from transformer_lab.data.examples import Document
from transformer_lab.data.packing import piece, ranges
from transformer_lab.data.sentences import cache_key, sentences
from transformer_lab.data.store import Corpus, Token

FORMAT = 2  # raise it when other pairs come out
SHORT = 0.1  # how often a pair is shorter than it could be


@dataclass(frozen=True)
class SentenceEncoding:
    """For each document a row of its tokens, sentence after sentence, and one of the lengths of the sentences."""

    columns = {"tokens": Token, "sentences": np.int32}  # noqa: RUF012 - the same for all
    written = None

    def cache_key(self) -> dict[str, Any]:
        return {"kind": "sentences", **cache_key()}

    def texts(self, example: Document) -> Sequence[str]:
        return sentences(example.text)

    def row(self, example: Document, encoded: list[list[int]]) -> dict[str, Sequence[int]]:
        whole = [ids for ids in encoded if ids]
        return {"tokens": [token for ids in whole for token in ids], "sentences": [len(ids) for ids in whole]}


Starts = Callable[[int], Sequence[int]]  # of a document: where its sentences begin, and where the last one ends
SentenceTask = Literal["next", "order", "none"]
# A pair: where its two segments begin and how long they are, whether the second is not what followed the first
# (next: it is from another document; order: the two were swapped), and which variant of the data it is from.
PAIR = piece("a", "a_length", "b", "b_length", "nsp_label", "variant")


class Borders(Sequence[int]):
    """Where the sentences of a document begin, with more borders put in from its beginning to its end.

    Those in front of the last one put in are a list of their own, so that a long document is not moved for each.
    """

    def __init__(self, whole: Sequence[int]) -> None:
        self.front: list[int] = []
        self.whole, self.taken = whole, 0

    def __len__(self) -> int:
        return len(self.front) + len(self.whole) - self.taken

    def __getitem__(self, index: Any) -> Any:
        return self.front[index] if index < len(self.front) else self.whole[self.taken + index - len(self.front)]

    def insert(self, index: int, start: int) -> None:
        """… behind every other that was put in."""
        taken = self.taken + index - len(self.front)
        self.front += [*self.whole[self.taken : taken], start]
        self.taken = taken


@dataclass(frozen=True)
class Pairs:
    """Lists the pairs of a corpus, each of at most `budget` tokens, `variants` times with other draws each time.

    `task` says what is to be told of the second segment: whether it is the next one ("next": half are from another
    document, or from elsewhere in the only one), or whether the two are in order ("order"; Lan et al., 2020,
    arXiv:1909.11942); with "none" there is no second segment. A sentence of which no two fit into a pair is split by
    its tokens, so everything is read; but with "order" a document of one sentence has no pair, and is counted.
    """

    budget: int
    task: SentenceTask
    variants: int

    @property
    def cache_key(self) -> str:
        """What the pairs of a corpus depend on."""
        return f"{self!r} {FORMAT}"

    def check(self, corpus: Corpus) -> None:
        """Raises ValueError where the corpus has no pairs, or only such as have one answer."""
        sentences = corpus["sentences"]
        counts = np.diff(sentences.offsets[:])
        why = ""
        if self.task != "none" and counts.max(initial=0) < 2 and sentences.values[:].max(initial=0) <= self._longest:
            why = "no document has two sentences (they end with a full stop or its like, or with a line)"
        elif self.task == "next" and np.count_nonzero(counts) == 1 and self._parts(corpus, int(counts.argmax())) < 3:
            why = "there is one document, and it has no third sentence, which would not be the next one"
        if why:
            raise ValueError(f"task.sentence_task={self.task}: {why}; task.sentence_task=none needs no pairs")

    def _parts(self, corpus: Corpus, row: int) -> int:
        return len(self._starts(corpus, row)) - 1

    @property
    def _longest(self) -> int:
        """The most tokens of a sentence that is not split: any two fit into a pair."""
        return self.budget if self.task == "none" else self.budget // 2

    def __call__(self, corpus: Corpus, begin: int, end: int) -> tuple[np.ndarray, np.ndarray, int]:
        every: list[tuple[int, ...]] = []
        unread, starts_of = 0, lru_cache(maxsize=16)(partial(self._starts, corpus))  # for corpora of a few long ones
        for row in range(begin, end):
            unread += self.task == "order" and len(starts_of(row)) == 2
            for variant in range(self.variants):
                every += self._of_document(corpus, row, starts_of, variant)
        pairs = np.array(every, dtype=PAIR)
        special_tokens = np.where(pairs["b_length"] > 0, 3, 2)  # one before, one behind each segment
        return pairs, pairs["a_length"] + pairs["b_length"] + special_tokens, unread

    def _of_document(self, corpus: Corpus, row: int, starts_of: Starts, variant: int) -> Iterator[tuple[int, ...]]:
        starts = Borders(starts_of(row))

        def known(other: int) -> Sequence[int]:
            return starts if other == row else starts_of(other)

        draw = random.Random(f"{variant} {row} of {corpus.num_examples}")
        wanted = self._length(draw)
        first = 0
        while first < len(starts) - 1:
            if self.task == "order" and first == len(starts) - 2:  # left alone: read with the one before it once more
                first -= 1
                if first < 0:
                    return
            last = self._reach(starts, first, wanted, least=1 if self.task == "none" else 2)
            a = starts[first]
            if starts[last] > a + self.budget:  # what does not fit of the last one is where the next pair begins
                starts.insert(last, a + self.budget)
            end = starts[last]
            if self.task == "none":
                yield a, end - a, 0, 0, 0, variant
                first = last
                continue
            middle = draw.randint(first + 1, last - 1) if last - first > 1 else last
            b = starts[middle]
            other = None
            if self.task == "order":
                swapped = draw.random() < 0.5
                yield (b, end - b, a, b - a, 1, variant) if swapped else (a, b - a, b, end - b, 0, variant)
            elif middle == last or draw.random() < 0.5:
                other = self._other(corpus, row, known, (first, middle), wanted - (b - a), draw)
            if other is not None:
                yield a, b - a, other[0], min(other[1], self.budget - (b - a)), 1, variant
                last = middle  # what the first segment did not take is still to be used
            elif self.task == "next":
                yield a, b - a, b, end - b, 0, variant
            first = last

    def _starts(self, corpus: Corpus, row: int) -> list[int]:
        """Where a document's sentences, or the parts of long ones, begin in the corpus, and where the last ends."""
        begin = int(corpus["tokens"].offsets[row])
        lengths = corpus["sentences"][row].astype(np.int64)
        if not len(lengths):
            return [begin]
        parts = -(-lengths // self._longest)
        of = np.repeat(np.arange(len(parts)), parts)  # which sentence a part is of, and its number there, from 1
        number = ranges(np.ones_like(parts), parts)
        ends = (np.cumsum(lengths) - lengths)[of] + lengths[of] * number // parts[of]
        return [begin, *(begin + ends).tolist()]

    def _reach(self, starts: Sequence[int], first: int, wanted: int, least: int) -> int:
        """Where those sentences end that have `wanted` tokens together, from this one on; but at least so many."""
        last = min(first + least, len(starts) - 1)
        while last < len(starts) - 1 and starts[last] - starts[first] < wanted:
            last += 1
        return last

    def _length(self, draw: random.Random) -> int:
        return draw.randint(2, self.budget) if draw.random() < SHORT else self.budget

    def _other(
        self, corpus: Corpus, row: int, starts_of: Starts, apart: tuple[int, int], wanted: int, draw: random.Random
    ) -> tuple[int, int] | None:
        """A stretch of another document: where it begins, at a random sentence, and how long it is.

        Where only this one has text, it is of this one, apart from those two sentences and what is between them.
        """
        other = self._document(corpus, row, draw)
        starts, (first, middle) = starts_of(other), apart
        count = stop = len(starts) - 1
        if other != row:
            begin = draw.randrange(count)
        elif (left := first + max(0, count - middle - 1)) > 0:
            begin = draw.randrange(left)
            if begin < first:
                stop = first
            else:
                begin += middle + 1 - first
        else:
            return None
        return starts[begin], starts[min(stop, self._reach(starts, begin, wanted, least=1))] - starts[begin]

    def _document(self, corpus: Corpus, row: int, draw: random.Random) -> int:
        """Another document with text, where there is one."""
        count = corpus.num_examples
        start = row + (draw.randrange(1, count) if count > 1 else 0)
        others = ((start + step) % count for step in range(count))
        return next((other for other in others if other != row and len(corpus["sentences"][other])), row)
