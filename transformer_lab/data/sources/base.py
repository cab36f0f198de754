"""What a source of examples is, and how a corpus without splits of its own is cut into them."""

import difflib
import hashlib
import math
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from transformer_lab.data.examples import Document, Example, Split, folded

MORE = {"validation": "take more", "test": "take more, or 0 for no such split"}  # a run needs to be validated
BINS = 1 << 12  # places of a hash that are told apart where large strata are cut
HASHED = 1 << 16  # characters that decide a document's side: the first piece of a long one always holds as many


class Source(ABC):
    """Where examples of one type come from."""

    example_type: type
    language: str | None = None  # the code of the one that is to be written, where the data name it

    @abstractmethod
    def cache_key(self) -> dict[str, Any]:
        """What changes when the data may have; of contents, a sample is read at most."""

    @abstractmethod
    def read(self) -> Iterator[tuple[Split, Any]]:
        """One pass over everything, each time in the same order and in bounded memory."""


@dataclass(frozen=True, kw_only=True)
class HashSplit:
    """Puts examples on a side by a hash of their first text, or of their group: what is equal never faces itself.

    A `stratum` of an example is what each side is to have its share of, a class as a rule; one of three examples or
    more has one on each side, and a smaller one trains. (Neyman, 1934, for samples drawn so.) A corpus of one document
    is cut in order instead: its beginning trains, its end tests.
    """

    validation: float
    test: float
    stratum: Callable[[Any], str] | None = None

    def __post_init__(self) -> None:
        for name, fraction in (("validation", self.validation), ("test", self.test)):
            if not 0 <= fraction < 1:
                raise ValueError(f"data.{name}={fraction}: a fraction of the data, at least 0 and below 1")
        if self.validation + self.test >= 1:
            both = f"data.validation={self.validation} and data.test={self.test}"
            raise ValueError(f"{both} leave nothing to train on: their sum has to be below 1")

    def side(self, text: str, borders: tuple[float, float] | None = None) -> Split:
        """By where the text's hash lies; below the first of the `borders` it validates, below the second it tests."""
        first, second = borders or (self.validation, self.validation + self.test)
        point = _point(text)
        if point < first:
            return "validation"
        return "test" if point < second else "train"

    def __call__(self, read: Callable[[], Iterable[Example]]) -> Iterator[tuple[Split, Any]]:
        """Every example that `read` yields, with its side; `read` is called again for each pass needed."""
        if self.validation == self.test == 0:
            yield from (("train", example) for example in read())
        elif (length := _length_of_only(read())) is None:
            yield from self._by_hash(read(), self._borders(read()) if self.stratum else {})
        else:
            yield from self._in_order(read(), length)

    def _borders(self, examples: Iterable[Example]) -> dict[str, tuple[float, float]]:
        """Of each stratum, between which of its hashes the sides lie: exactly, or of a large one to one of `BINS`, so
        that memory is bounded."""
        assert self.stratum
        found: dict[str, Counter[float]] = {}  # how many lie below a number, and not below a smaller one
        for example in examples:
            stratum = self.stratum(example)
            below = found.setdefault(stratum, Counter())
            below[math.nextafter(_point(example.side_key), 1)] += 1
            if len(below) > 2 * BINS:
                found[stratum] = coarse = Counter[float]()
                for number, count in below.items():
                    coarse[math.ceil(number * BINS) / BINS] += count
        return {stratum: self._borders_of(below) for stratum, below in found.items()}

    def _borders_of(self, below: Counter[float]) -> tuple[float, float]:
        total, wanted = below.total(), [share for share in (self.validation, self.test) if share]
        if total <= len(wanted):
            return 0.0, 0.0
        counts = [max(1, round(total * share)) if share else 0 for share in (self.validation, self.test)]
        while sum(counts) >= total:  # rounded up, so that nothing would be left to train on
            counts[counts.index(max(counts))] -= 1
        ends, seen = [0.0, 0.0], 0
        for number in sorted(below):
            for side, end in enumerate((counts[0], sum(counts))):
                if seen < end:
                    ends[side] = number
            seen += below[number]
        return ends[0], ends[1]

    def _by_hash(
        self, examples: Iterable[Example], borders: dict[str, tuple[float, float]]
    ) -> Iterator[tuple[Split, Example]]:
        counts: Counter[Split] = Counter()
        side: Split | None = None  # of the example that goes on
        for example in examples:
            if side is None:
                side = self.side(example.side_key, borders[self.stratum(example)] if self.stratum else None)
                counts[side] += 1
            yield side, example
            side = side if example.more else None
        for name, fraction in self._fractions().items():
            if fraction and not counts[name]:
                raise ValueError(
                    f"data.{name}={float(fraction):g}: none of the {counts.total():,} examples fell into this split; "
                    + ("take a smaller validation and test" if name == "train" else MORE[name])
                )

    def _in_order(self, pieces: Iterable[Any], length: int) -> Iterator[tuple[Split, Document]]:
        begin, part, parts = 0, Fraction(0), []
        for name, fraction in self._fractions().items():
            part += fraction
            end = int(length * part)
            if fraction and begin == end:
                raise ValueError(
                    f"data.{name}={float(fraction):g}: an empty split, of one document with {length:,} characters; "
                    f"{MORE.get(name, MORE['validation'])}"
                )
            parts.append((name, begin, end))
            begin = end
        start = 0
        for piece in pieces:
            stop = start + len(piece.text)
            for name, begin, end in parts:
                if max(begin, start) < min(end, stop):
                    yield name, Document(piece.text[max(begin - start, 0) : end - start], more=stop < end)
            start = stop

    def _fractions(self) -> dict[Split, Fraction]:
        """Exact, as they are written: 1 - 0.05 - 0.05 in floating point is not 0.9."""
        validation, test = Fraction(str(self.validation)), Fraction(str(self.test))
        return {"train": 1 - validation - test, "validation": validation, "test": test}


def _point(text: str) -> float:
    """Where a text lies in [0, 1), wherever and whenever it is asked."""
    words = " ".join(folded(text))[:HASHED]
    return int.from_bytes(hashlib.sha256(words.encode()).digest()[:8]) / 2**64


def _length_of_only(examples: Iterable[Example]) -> int | None:
    """The characters of a corpus that is one document; None as soon as a second example begins."""
    length, goes_on = 0, True
    for example in examples:
        if not goes_on or not isinstance(example, Document):
            return None
        length += len(example.text)
        goes_on = example.more
    return length


def no_such_path(option: str, path: str | Path) -> ValueError:
    """The error for a path that is not there, with the nearest one that is."""
    gone = Path(path).expanduser()
    while not gone.parent.exists():
        gone = gone.parent
    names = sorted(os.listdir(gone.parent)) if gone.parent.is_dir() else []
    near = difflib.get_close_matches(gone.name, names, n=1)
    hint = f"did you mean {gone.parent / near[0]}?" if near else f"there is no {gone.name} in {gone.parent.resolve()}"
    return ValueError(f"{option}={path}: no such file or folder; {hint}")


def no_such_name(option: str, name: str, there: Iterable[str], what: str) -> ValueError:
    """The error for a name that is not there, with the nearest one that is."""
    names = sorted(there)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(names[:20])}"
    return ValueError(f"{option}={name}: {what}; {hint}")
