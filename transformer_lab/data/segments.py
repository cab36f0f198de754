"""Documents as sentences, and pairs of segments made of them, as BERT was pre-trained on (Devlin et al., 2019,
arXiv:1810.04805, appendix A.2, and the data preparation that was published with it).

A segment is a stretch of whole sentences that follow each other, so it is known by where its tokens begin and how
many they are.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from transformer_lab.data.examples import Document
from transformer_lab.data.sentences import sentences, signature
from transformer_lab.data.store import Corpus, Token

SHORT = 0.1  # how often a pair is shorter than it could be
TRIES = 10  # to find another document


@dataclass(frozen=True)
class SentenceEncoding:
    """For each document a row of its tokens, sentence after sentence, and one of the lengths of the sentences."""

    columns = {"tokens": Token, "sentences": np.int32}  # noqa: RUF012 - the same for all

    def signature(self) -> dict[str, Any]:
        return {"kind": "sentences", **signature()}

    def texts(self, example: Document) -> Sequence[str]:
        return sentences(example.text)

    def row(self, example: Document, encoded: list[list[int]]) -> dict[str, Sequence[int]]:
        whole = [ids for ids in encoded if ids]
        return {"tokens": [token for ids in whole for token in ids], "sentences": [len(ids) for ids in whole]}


SentenceTask = Literal["next", "order", "none"]
# A pair: where its two segments begin and how long they are, whether the second is not what followed the first
# (next: it is from another document; order: the two were swapped), and which variant of the data it is from.
COLUMNS = ("a", "a_length", "b", "b_length", "wrong", "variant")


@dataclass(frozen=True)
class Pairs:
    """Lists the pairs of a corpus, each of at most `budget` tokens, `variants` times with other draws each time.

    `task` says what is to be told of the second segment: whether it is the next one ("next": half are from another
    document), or whether the two are in order ("order"; Lan et al., 2020, arXiv:1909.11942); with "none" there is no
    second segment.
    """

    budget: int
    task: SentenceTask
    variants: int

    def __call__(self, corpus: Corpus, begin: int, end: int) -> tuple[np.ndarray, np.ndarray, int]:
        every = [pair for variant in range(self.variants) for row in range(begin, end)
                 for pair in self.of_document(corpus, row, variant)]  # fmt: skip
        pairs = np.array(every, dtype=np.int64).reshape(-1, len(COLUMNS))
        specials = np.where(pairs[:, 3] > 0, 3, 2)  # one before, one behind each segment
        return pairs, pairs[:, 1] + pairs[:, 3] + specials, 0

    def of_document(self, corpus: Corpus, row: int, variant: int) -> Iterator[tuple[int, ...]]:
        draw = random.Random(f"{variant} {row} of {corpus.num_examples}")
        starts = _starts(corpus, row)
        wanted = self._length(draw)
        first = 0  # sentence of the chunk that is being filled
        while first < len(starts) - 1:
            last = first + 1
            while last < len(starts) - 1 and starts[last] - starts[first] < wanted:
                last += 1
            middle = draw.randint(first + 1, last - 1) if last - first > 1 else last
            if self.task == "none":
                yield self._cut(starts[first], starts[last], 0, 0, 0, variant, draw)
            elif self.task == "order":
                if middle < last:
                    yield self._in_order(starts[first], starts[middle], starts[last], variant, draw)
            elif middle == last or draw.random() < 0.5:
                other = self._other(corpus, row, wanted - (starts[middle] - starts[first]), draw)
                yield self._cut(starts[first], starts[middle], *other, 1, variant, draw)
                last = middle  # what the first segment did not take is still to be used
            else:
                yield self._cut(starts[first], starts[middle], starts[middle], starts[last], 0, variant, draw)
            first = last

    def _length(self, draw: random.Random) -> int:
        return draw.randint(2, self.budget) if draw.random() < SHORT else self.budget

    def _in_order(self, a: int, b: int, end: int, variant: int, draw: random.Random) -> tuple[int, ...]:
        sides = [(a, b), (b, end)]
        swapped = draw.random() < 0.5
        (begin, stop), (second, last) = reversed(sides) if swapped else sides
        return self._cut(begin, stop, second, last, int(swapped), variant, draw)

    def _other(self, corpus: Corpus, row: int, wanted: int, draw: random.Random) -> tuple[int, int]:
        """A stretch of another document, from a random sentence on, until it is long enough."""
        for _ in range(TRIES):
            other = draw.randrange(corpus.num_examples)
            if other != row and len(corpus["sentences"][other]):
                break
        starts = _starts(corpus, other)
        if len(starts) < 2:
            starts = _starts(corpus, row)
        first = draw.randrange(len(starts) - 1)
        last = first + 1
        while last < len(starts) - 1 and starts[last] - starts[first] < wanted:
            last += 1
        return starts[first], starts[last]

    def _cut(self, a: int, a_end: int, b: int, b_end: int, wrong: int, variant: int,
             draw: random.Random) -> tuple[int, ...]:  # fmt: skip
        """Token by token from the longer segment, from its beginning or its end, until the pair fits."""
        while (a_end - a) + (b_end - b) > self.budget:
            front = draw.random() < 0.5
            if a_end - a > b_end - b:
                a, a_end = (a + 1, a_end) if front else (a, a_end - 1)
            else:
                b, b_end = (b + 1, b_end) if front else (b, b_end - 1)
        return a, a_end - a, b, b_end - b, wrong, variant


def _starts(corpus: Corpus, row: int) -> list[int]:
    """Where the sentences of a document begin in the corpus, and where the last one ends."""
    begin = int(corpus["tokens"].offsets[row])
    return [begin, *(begin + np.cumsum(corpus["sentences"][row], dtype=np.int64)).tolist()]
