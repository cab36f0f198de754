"""What a source yields, with the name of a split: an example, of one of these types."""

import unicodedata
from dataclasses import dataclass, field
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

    @property
    def side_key(self) -> str:
        """What decides the split it is in: two examples of the same key are never parted."""
        return self.texts[0]


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
    """A text and the names of its classes: one, or any number where classes do not exclude each other.

    `second` is the other text of a pair, whose classes are of both together. `group` is whose it is, where texts of one
    author or customer are to be on one side.
    """

    text: str
    labels: tuple[str, ...]
    second: str | None = field(default=None, kw_only=True)
    group: str | None = field(default=None, kw_only=True)

    @property
    def texts(self) -> tuple[str, ...]:
        return (self.text,) if self.second is None else (self.text, self.second)

    @property
    def side_key(self) -> str:
        return self.text if self.group is None else self.group


@dataclass(frozen=True)
class Pair(Example):
    """A text and its translation."""

    source: str
    target: str

    @property
    def texts(self) -> tuple[str, ...]:
        return (self.source, self.target)
