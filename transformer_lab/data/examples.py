"""What a source yields, with the name of a split: an example, of one of these types."""

import unicodedata
from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "validation", "test"]


def folded(text: str) -> list[str]:
    """The words of a text, for two texts to be found alike that differ in case, space or composition only."""
    return unicodedata.normalize("NFC", text).casefold().split()


@dataclass(frozen=True)
class Example:
    """Anything with texts in it: two examples with the same `texts` are the same one."""

    more = False  # whether the next example continues this one

    @property
    def texts(self) -> tuple[str, ...]:
        raise NotImplementedError


@dataclass(frozen=True)
class Document(Example):
    """A text, or a piece of one: `more` says that the next example continues it, so huge files need no huge memory."""

    text: str
    more: bool = False

    @property
    def texts(self) -> tuple[str, ...]:
        return (self.text,)


@dataclass(frozen=True)
class LabeledText(Example):
    """A text and the names of its classes: one, or any number where classes do not exclude each other."""

    text: str
    labels: tuple[str, ...]

    @property
    def texts(self) -> tuple[str, ...]:
        return (self.text,)


@dataclass(frozen=True)
class Pair(Example):
    """A text and its translation."""

    source: str
    target: str

    @property
    def texts(self) -> tuple[str, ...]:
        return (self.source, self.target)
