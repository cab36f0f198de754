"""Texts with the names of their classes, from tables of the user's own."""

import logging
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, Unpack

from transformer_lab.data.examples import LabeledText, Split
from transformer_lab.data.sources.files import TABLES, FileOptions, Files, Unit, is_table, listed, tables
from transformer_lab.data.sources.streams import clean
from transformer_lab.data.sources.tables import Columns, Row

MissingLabel = Literal["error", "skip"]
NAMED = 10  # rows without a label, of however many there are
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Unlabeled(LabeledText):
    """A text whose row, at `where`, has no label."""

    where: str


@dataclass(frozen=True)
class LabelColumns(Columns):
    """One label a row; any number where the cell is a list, or text with a `separator` between labels.

    `missing_label` says what a row without one does: "error" ends the run, "skip" leaves it out.
    """

    text_column: str = "text"
    label_column: str = "label"
    separator: str | None = None
    missing_label: MissingLabel = "error"

    def __post_init__(self) -> None:
        if self.text_column == self.label_column:
            raise ValueError(f"data.text_column and data.label_column are both {self.text_column}")
        if self.separator == "":
            raise ValueError("data.separator is empty: the sign between two labels, or null for one label a row")

    def names(self) -> dict[str, str]:
        return {"text_column": self.text_column, "label_column": self.label_column}

    def example(self, where: str, row: Row) -> LabeledText:
        text = self.text(where, row, "text_column")
        if not text.strip():  # it will be skipped, whatever its label
            return LabeledText(text, ())
        labels = tuple(dict.fromkeys(self._labels(where, row.get(self.label_column))))
        return Unlabeled(text, (), where) if "" in labels else LabeledText(text, labels)

    def labelled(self, examples: Iterable[Any], origin: str) -> Iterator[LabeledText]:
        """Without those that have no label: they are counted, and end the run or are said."""
        count, locations = 0, list[str]()
        for example in examples:
            if isinstance(example, Unlabeled):
                count, locations = count + 1, [*locations, example.where][:NAMED]
            elif not count or self.missing_label == "skip":  # a run that will end needs nothing more
                yield example
        if count:
            more = f"; and {count - NAMED:,} more" if count > NAMED else ""
            found = f"{count:,} rows have no label ({'; '.join(locations)}{more})"
            found = f"{locations[0]} has no label" if count == 1 else found
            if self.missing_label == "error":
                raise ValueError(
                    f"data.label_column={self.label_column}: {found}; data.missing_label=skip leaves "
                    f"{'it' if count == 1 else 'them'} out"
                )
            _say_once(f"{origin}: skipped, for {found}")

    def _labels(self, where: str, value: Any) -> Iterator[str]:
        if isinstance(value, list):
            yield from (self._label(where, one) for one in value)
        elif isinstance(value, str) and self.separator is not None:
            yield from (self._label(where, one) for one in value.split(self.separator) if one.strip())
        else:
            yield self._label(where, value)

    def _label(self, where: str, value: Any) -> str:
        """ "" where there is none."""
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
            return str(int(value))
        if isinstance(value, str) and value.strip():
            return clean(value, where).strip()
        if value is None or isinstance(value, str) or (isinstance(value, float) and math.isnan(value)):
            return ""
        what = f"{where} holds {value!r:.40}, which names no class"
        raise ValueError(f"data.label_column={self.label_column}: {what}")


class Labeled(Files):
    """One text per row, with its labels."""

    example_type = LabeledText

    def __init__(
        self,
        *,
        path: str,
        text_column: str = "text",
        label_column: str = "label",
        separator: str | None = None,
        missing_label: MissingLabel = "error",
        **options: Unpack[FileOptions],
    ) -> None:
        self.labels = LabelColumns(text_column, label_column, separator, missing_label)
        super().__init__(columns=self.labels, path=path, **options)

    def find(self, option: str, path: str) -> list[Unit]:
        return tables(option, path, listed(option, path, is_table, TABLES))

    def examples(self, split: Split) -> Iterator[Any]:
        return self.labels.labelled(super().examples(split), self.origin(split))


@cache
def _say_once(line: str) -> None:
    """However often the data are read."""
    log.warning("%s", line)
