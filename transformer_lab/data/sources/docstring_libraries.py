"""Which library a docstring is from: texts to classify without a download, the names of the libraries masked out."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from transformer_lab.data.examples import LabeledText, folded
from transformer_lab.data.sources.docstrings import SHORTEST, PackageDocstrings

MASK = "library"  # stands for every name: an ordinary word that docstrings of any library use
SHORT = 4  # letters: a name up to this length may be part of an ordinary word, as the np of input

# What else a library is called, and the names by which it is imported. They are masked whatever the packages are:
# a docstring of Lightning is recognised by the word PyTorch, be torch among the classes or not.
ALSO_CALLED = {
    "stdlib": ["Python", "standard library"],
    "numpy": ["np", "npy", "npyio", "npz", "npt", "f2py"],
    "pandas": ["pd"],
    "networkx": ["nx"],
    "sympy": ["sympif"],  # sympify, sympification
    "torch": ["aten", "c10", "c10d", "ptl"],
    "torchmetrics": [],
    "lightning": ["pl", "Fabric", "LitModel", "LitLogger"],
    "datasets": ["dataset", "ds"],
    "huggingface_hub": ["Hugging Face", "hugging", "hub", "hf", "HfUri", "🤗"],
}


class DocstringLibraries(PackageDocstrings):
    """The beginning of each docstring, labelled with its package; what two packages say belongs to neither."""

    name = "docstring libraries"
    example_type = LabeledText

    def __init__(
        self,
        *,
        packages: list[str],
        validation: float = 0.05,
        test: float = 0.05,
        max_per_package: int | None = None,
        max_paragraphs: int | None = None,
        max_characters: int | None = None,
    ) -> None:
        super().__init__(packages=packages, validation=validation, test=test)
        if len(self.roots) < 2:
            raise ValueError(f"data.packages={packages[0]}: each package is a class, name two or more")
        self.limits = {
            "max_per_package": max_per_package,
            "max_paragraphs": max_paragraphs,
            "max_characters": max_characters,
        }
        for option, limit in self.limits.items():
            if limit is not None and limit < 1:
                raise ValueError(f"data.{option}={limit}: at least 1, or null for no limit")
        self.names = _names_of({*self.roots, *ALSO_CALLED, *(name for also in ALSO_CALLED.values() for name in also)})

    def cache_key(self) -> dict[str, Any]:
        return {**super().cache_key(), **self.limits, "masked": self.names.pattern}

    def examples(self, found: Iterable[tuple[str, str]]) -> Sequence[LabeledText]:
        texts: dict[str, tuple[str, set[str]]] = {}  # up to case and space: as first found, and the packages it is in
        for package, docstring in found:
            text = self.names.sub(MASK, self._beginning(docstring))
            if len(text) >= SHORTEST:
                texts.setdefault(" ".join(folded(text)), (text, set()))[1].add(package)
        labelled = []
        for package in self.roots:
            own = [text for text, packages in texts.values() if packages == {package}]
            if not own:
                raise ValueError(
                    f"data.packages={','.join(self.roots)}: {package} has no docstring of {SHORTEST} characters "
                    "that none of the others has"
                )
            labelled += [LabeledText(text, (package,)) for text in _spread(own, self.limits["max_per_package"])]
        return labelled

    def _beginning(self, text: str) -> str:
        """Ends between words, so that no name is cut in two and overlooked."""
        paragraphs, characters = self.limits["max_paragraphs"], self.limits["max_characters"]
        if paragraphs is not None:
            text = "\n\n".join(re.split(r"\n\s*\n", text, maxsplit=paragraphs)[:paragraphs])
        if characters is not None and len(text) > characters:
            text = re.sub(r"\S+\Z", "", text[: characters + 1]).rstrip()
        return text


def _names_of(names: Iterable[str]) -> re.Pattern[str]:
    """The words that hold a name: torchvision tells as much as torch, and so does what would be left of it."""

    def any_of(some: Iterable[str]) -> str:  # the longest first, spelt in one word or in several
        ordered = sorted(some, key=lambda name: (-len(name), name))
        return "|".join(r"[\s_-]*".join(map(re.escape, re.split("[ _]", name.strip("_")))) for name in ordered)

    lower = {name.lower() for name in names}
    short = {name for name in lower if len(name) <= SHORT}
    anywhere = rf"[a-z]*?(?:{any_of(lower - short)})[a-z]*"
    first = rf"(?:{any_of(short)})(?:(?![a-z])|(?-i:(?=[A-Z][a-z]))[a-z]*)"  # the np of np.array, the Hf of HfApi
    return re.compile(rf"(?<![a-z])(?:{anywhere}|{first})", re.IGNORECASE)


def _spread(texts: list[str], most: int | None) -> list[str]:
    """As many, from all over the package: the first ones would be of a few modules."""
    if most is None or len(texts) <= most:
        return texts
    return [texts[i * len(texts) // most] for i in range(most)]
