"""What a source yields: a split's name and an example; a document is the plainest of examples."""

from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Document:
    """A text, or a piece of one: `more` says that the next example continues it, so huge files need no huge memory."""

    text: str
    more: bool = False
