"""Sources that may bring splits of their own: those they lack are cut from their training split."""

import logging
from abc import abstractmethod
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from typing import Any, TypedDict

from transformer_lab.data.examples import Example, Split
from transformer_lab.data.sources.base import HashSplit, Source

log = logging.getLogger(__name__)


class SplitOptions(TypedDict, total=False):
    """What any source takes that may bring splits of its own."""

    validation: float
    test: float
    max_examples: int | None


class SplitSource(Source):
    """`max_examples` limits what is read of the training split; the others measure, and are read as a whole."""

    def __init__(self, *, validation: float = 0.05, test: float = 0.05, max_examples: int | None = None) -> None:
        if max_examples is not None and max_examples < 1:
            raise ValueError(f"data.max_examples={max_examples}: at least 1, or null for all there are")
        self.hash_split = HashSplit(validation=validation, test=test)
        self.max_examples = max_examples

    @abstractmethod
    def splits(self) -> Collection[Split]:
        """Those it has of its own, train among them."""

    @abstractmethod
    def origin(self, split: Split) -> str:
        """Where a split comes from, in the user's words."""

    @abstractmethod
    def examples(self, split: Split) -> Iterator[Example]:
        """All of a split, also those without any text."""

    def cache_key(self) -> dict[str, Any]:
        return {
            "validation": self.hash_split.validation,
            "test": self.hash_split.test,
            "max_examples": self.max_examples,
        }

    def read(self) -> Iterator[tuple[Split, Any]]:
        others = [split for split in self.splits() if split != "train"]
        asked = self.hash_split
        hash_split = replace(
            asked,
            validation=0 if "validation" in others else asked.validation,
            test=0 if "test" in others else asked.test,
        )
        yield from hash_split(lambda: _limited(self._filled("train"), self.max_examples))
        for split in others:
            yield from ((split, example) for example in self._filled(split))

    def _filled(self, split: Split) -> Iterator[Example]:
        return filled(self.examples(split), self.origin(split))


def filled(examples: Iterable[Example], where: str) -> Iterator[Example]:
    """Without those that lack a text, on either side; they are counted, and there has to be another one."""
    found = blank = 0
    goes_on = False
    for example in examples:
        if goes_on or example.more or all(map(str.strip, example.texts)):
            found += 1
            yield example
        else:
            blank += 1
        goes_on = example.more
    if blank:
        log.info("%s: skipped %s without any text", where, f"{blank:,} examples" if blank > 1 else "an example")
    if not found:
        raise ValueError(f"{where}: no text in it")


def _limited(examples: Iterable[Example], most: int | None) -> Iterator[Example]:
    whole = 0
    for example in examples:
        yield example
        whole += not example.more
        if whole == most:
            return
