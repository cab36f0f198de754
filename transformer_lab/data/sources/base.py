"""What a source of examples is, and how a corpus without splits of its own is cut into them."""

import difflib
import hashlib
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
    """Puts examples on a side by a hash of their first text, so that equal texts never face each other.

    A corpus of one document is cut in order instead: its beginning trains, its end tests.
    """

    validation: float
    test: float

    def __post_init__(self) -> None:
        for name, fraction in (("validation", self.validation), ("test", self.test)):
            if not 0 <= fraction < 1:
                raise ValueError(f"data.{name}={fraction}: a fraction of the data, at least 0 and below 1")
        if self.validation + self.test >= 1:
            both = f"data.validation={self.validation} and data.test={self.test}"
            raise ValueError(f"{both} leave nothing to train on: their sum has to be below 1")

    def side(self, text: str) -> Split:
        words = " ".join(folded(text))[:HASHED]
        point = int.from_bytes(hashlib.sha256(words.encode()).digest()[:8]) / 2**64
        if point < self.validation:
            return "validation"
        return "test" if point < self.validation + self.test else "train"

    def __call__(self, read: Callable[[], Iterable[Example]]) -> Iterator[tuple[Split, Any]]:
        """Every example that `read` yields, with its side; `read` is called again for each pass needed."""
        if self.validation == self.test == 0:
            yield from (("train", example) for example in read())
        elif (length := _length_of_only(read())) is None:
            yield from self._by_hash(read())
        else:
            yield from self._in_order(read(), length)

    def _by_hash(self, examples: Iterable[Example]) -> Iterator[tuple[Split, Example]]:
        counts: Counter[Split] = Counter()
        side: Split | None = None  # of the example that goes on
        for example in examples:
            if side is None:
                side = self.side(example.texts[0])
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
