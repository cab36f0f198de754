"""How long a docstring is, from how it begins: numbers to learn without a download."""

import math
import re
from collections.abc import Iterable, Sequence

from transformer_lab.data.examples import LabeledText, folded
from transformer_lab.data.sources.docstrings import SHORTEST, PackageDocstrings


class DocstringLengths(PackageDocstrings):
    """The first paragraph of each docstring of several, with the logarithm to base 10 of the characters that follow.

    Of those that begin alike, up to case and space, the first one is read.
    """

    name = "docstring lengths"
    example_type = LabeledText

    def examples(self, found: Iterable[tuple[str, str]]) -> Sequence[LabeledText]:
        lengths: dict[str, LabeledText] = {}
        for _, docstring in found:
            first, *rest = re.split(r"\n\s*\n", docstring, maxsplit=1)
            if rest and len(first) >= SHORTEST:
                length = f"{math.log10(len(rest[0])):.4f}"
                lengths.setdefault(" ".join(folded(first)), LabeledText(first, (length,)))
        return list(lengths.values())
