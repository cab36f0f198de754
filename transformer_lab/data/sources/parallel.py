"""Texts and their translations: two files with as many lines each, or two columns of tables."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Unpack

from transformer_lab.data.examples import Pair
from transformer_lab.data.sources.files import TABLES, FileOptions, Files, Unit, is_table, listed, tables
from transformer_lab.data.sources.streams import clean, lines, unzipped
from transformer_lab.data.sources.tables import Columns, Row

NESTED = "translation"  # the column of the hub's own format: {"translation": {"en": …, "de": …}}


def language_code(name: str) -> str | None:
    """The code of a language in a name such as zh, pt-BR or jpn_Jpan; None where it is another name."""
    from babel import Locale, UnknownLocaleError  # here, for it takes a while

    try:
        return Locale.parse(name.replace("-", "_")).language
    except (ValueError, UnknownLocaleError):
        return None


@dataclass(frozen=True)
class PairColumns(Columns):
    """Two columns, in the table itself or within its column `translation`."""

    source: str
    target: str

    def __post_init__(self) -> None:
        if self.source == self.target:
            raise ValueError(f"data.source and data.target are both {self.source}: nothing to translate")

    def names(self) -> dict[str, str]:
        return {"source": self.source, "target": self.target}

    def example(self, where: str, row: Row) -> Pair:
        return Pair(self.text(where, row, "source"), self.text(where, row, "target"))

    def flat(self, row: Row) -> Row:
        inner = row.get(NESTED)
        return inner if isinstance(inner, dict) and self.source not in row else row


class Parallel(Files):
    """One pair per line of NAME.SOURCE and NAME.TARGET, say train.en and train.de, or per row of a table.

    `path` is a folder that holds such files, what their names have in common (corpus/train), one of them, or tables.
    """

    example_type = Pair

    def __init__(self, *, path: str, source: str, target: str, **options: Unpack[FileOptions]) -> None:
        self.source, self.target, self.language = source, target, language_code(target)
        super().__init__(columns=PairColumns(source, target), path=path, **options)

    def find(self, option: str, path: str) -> list[Unit]:
        place = Path(path).expanduser()
        files = [] if place.is_dir() else self._sides(self._split(place)[0])
        ends = f".{self.source}, .{self.target}, {TABLES}"
        files = files or listed(option, path, lambda file: is_table(file) or self._split(file)[1] != "", ends)
        sides: dict[Path, dict[str, Path]] = {}
        for file in files:
            name, language = self._split(file)
            if language:
                sides.setdefault(name, {}).setdefault(language, file)
        for name, pair in sides.items():
            for one, other in ((self.source, self.target), (self.target, self.source)):
                if other not in pair:
                    raise ValueError(f"{option}={path}: {pair[one].name} has no {name.name}.{other} beside it")
        return [(p[self.source], p[self.target]) for p in sides.values()] or tables(option, path, files)

    def examples_of(self, unit: Unit) -> Iterator[Any]:
        return aligned(*unit) if len(unit) == 2 else super().examples_of(unit)

    def _split(self, file: Path) -> tuple[Path, str]:
        """train.en.gz -> train, en; a file in neither language keeps its name."""
        plain = unzipped(file)
        for language in (self.source, self.target):
            if plain.name.endswith(f".{language}") and plain.name != f".{language}":
                return plain.with_name(plain.name.removesuffix(f".{language}")), language
        return file, ""

    def _sides(self, name: Path) -> list[Path]:
        ends = (f".{language}{zipped}" for language in (self.source, self.target) for zipped in ("", ".gz"))
        return [side for side in (name.with_name(name.name + end) for end in ends) if side.is_file()]


def aligned(source: Path, target: Path) -> Iterator[Pair]:
    """The lines of two files, side by side; a ValueError once one of them ends before the other."""
    both = zip_longest(lines(source), lines(target))
    for number, (one, other) in enumerate(both, 1):
        if one is None or other is None:
            longer = number + sum(1 for _ in both)
            counts = (number - 1, longer) if one is None else (longer, number - 1)
            raise ValueError(f"{source} has {counts[0]:,} lines and {target} {counts[1]:,}: which belong together?")
        yield Pair(clean(one[1], one[0]), clean(other[1], other[0]))
