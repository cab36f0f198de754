"""Texts with the names of their classes, from tables of the user's own."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from transformer_lab.data.examples import LabeledText
from transformer_lab.data.sources.files import TABLES, Files, Unit, is_table, listed, tables
from transformer_lab.data.sources.streams import clean
from transformer_lab.data.sources.tables import Columns, Row


@dataclass(frozen=True)
class LabelColumns(Columns):
    """One label a row; any number where the cell is a list, or text with a `separator` between labels."""

    text_column: str = "text"
    label_column: str = "label"
    separator: str | None = None

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
        labels = self._labels(where, row.get(self.label_column))
        return LabeledText(text, tuple(dict.fromkeys(labels)))

    def _labels(self, where: str, value: Any) -> Iterator[str]:
        if isinstance(value, list):
            yield from (self._label(where, one) for one in value)
        elif isinstance(value, str) and self.separator is not None:
            yield from (self._label(where, one) for one in value.split(self.separator) if one.strip())
        else:
            yield self._label(where, value)

    def _label(self, where: str, value: Any) -> str:
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
            return str(int(value))
        if isinstance(value, str) and value.strip():
            return clean(value, where).strip()
        nothing = value is None or isinstance(value, str) or (isinstance(value, float) and math.isnan(value))
        what = "has no label" if nothing else f"holds {value!r:.40}, which names no class"
        raise ValueError(f"data.label_column={self.label_column}: {where} {what}")


class Labeled(Files):
    """One text per row, with its labels."""

    example_type = LabeledText

    def __init__(self, *, path: str, text_column: str = "text", label_column: str = "label",
                 separator: str | None = None, **options: Any) -> None:  # fmt: skip
        super().__init__(columns=LabelColumns(text_column, label_column, separator), path=path, **options)

    def find(self, option: str, path: str) -> list[Unit]:
        return tables(option, path, listed(option, path, is_table, TABLES))
