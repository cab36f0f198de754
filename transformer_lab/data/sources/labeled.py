"""Texts with the names of their classes, from tables of the user's own."""

import json
import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any, Literal, Unpack

from transformer_lab.data.examples import LabeledText, Split
from transformer_lab.data.sources.base import HashSplit
from transformer_lab.data.sources.files import TABLES, FileOptions, Files, Unit, is_table, listed, tables
from transformer_lab.data.sources.streams import clean
from transformer_lab.data.sources.tables import Columns, Row

MissingLabel = Literal["error", "skip"]
NAMED = 10  # rows without a label, of however many there are
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Unlabeled(LabeledText):
    """A text whose row, at `where`, has no label."""

    where: str = field(kw_only=True)


@dataclass(frozen=True)
class LabelColumns(Columns):
    """One label a row; any number where the cell is a list, or text with a `separator` between labels.

    Of several `text_column`s, the cells make one text, one below the other; `pair_columns` are two that stay two texts,
    which are classified together: a premise and a hypothesis, say. `missing_label` says what a row without a
    label does: "error" ends the run, "skip" leaves it out. Rows of one `group_column` are on one side of a split.
    """

    text_column: str | list[str] = "text"
    label_column: str = "label"
    separator: str | None = None
    missing_label: MissingLabel = "error"
    group_column: str | None = None
    pair_columns: list[str] | None = None

    def __post_init__(self) -> None:
        if self.pair_columns is not None and (len(self.pair_columns) != 2 or self.text_column != "text"):
            raise ValueError("data.pair_columns: two columns, such as [premise,hypothesis], and no data.text_column")
        if not self._texts:
            raise ValueError("data.text_column is empty: a column, or several")
        if self.label_column in self._texts:
            raise ValueError(f"data.text_column and data.label_column are both {self.label_column}")
        if self.separator == "":
            raise ValueError("data.separator is empty: the sign between two labels, or null for one label a row")

    @property
    def _texts(self) -> list[str]:
        if self.pair_columns:
            return list(self.pair_columns)
        return [self.text_column] if isinstance(self.text_column, str) else list(self.text_column)

    @cached_property
    def _names(self) -> dict[str, str]:
        option = "pair_columns" if self.pair_columns else "text_column"
        several = {f"{option}[{number}]": name for number, name in enumerate(self._texts)}
        texts = several if len(several) > 1 else {"text_column": self._texts[0]}
        groups = {"group_column": self.group_column} if self.group_column else {}
        return {**texts, "label_column": self.label_column, **groups}

    @cached_property
    def _inputs(self) -> list[str]:
        return list(self._names)[: len(self._texts)]

    def names(self) -> dict[str, str]:  # asked of each cell
        return self._names

    def inputs(self) -> list[str]:
        return self._inputs

    def input(self, where: str, row: Row) -> str:
        """Of a pair, a JSON list of both."""
        if not self.pair_columns:
            return super().input(where, row)
        return json.dumps(self.cells(where, row), ensure_ascii=False)

    def example(self, where: str, row: Row) -> LabeledText:
        text, second = self.cells(where, row) if self.pair_columns else (self.input(where, row), None)
        group = None
        if not text.strip() or (second is not None and not second.strip()):  # it will be skipped, whatever its label
            return LabeledText(text, (), second=second)
        if self.group_column and (group := row.get(self.group_column)) in (None, ""):
            raise ValueError(f"data.group_column={self.group_column}: {where} names no group")
        labels = tuple(dict.fromkeys(self._labels(where, row.get(self.label_column))))
        if "" in labels:
            return Unlabeled(text, (), where=where)
        return LabeledText(text, labels, second=second, group=None if group is None else str(group))

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
            _say_once(f"{origin}: skipped, for {found}", logging.WARNING)

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
        if isinstance(value, float) and math.isfinite(value):
            return repr(value)
        if isinstance(value, str) and value.strip():
            return clean(value, where).strip()
        if value is None or isinstance(value, str) or (isinstance(value, float) and math.isnan(value)):
            return ""
        what = f"{where} holds {value!r:.40}, which names no class"
        raise ValueError(f"data.label_column={self.label_column}: {what}")


class Labeled(Files):
    """One text per row, with its labels.

    With `stratify`, each class has its share in each split that is cut from the training split.
    """

    example_type = LabeledText

    def __init__(
        self,
        *,
        path: str,
        text_column: str | list[str] = "text",
        label_column: str = "label",
        separator: str | None = None,
        missing_label: MissingLabel = "error",
        group_column: str | None = None,
        pair_columns: list[str] | None = None,
        stratify: bool = False,
        **options: Unpack[FileOptions],
    ) -> None:
        self.labels = LabelColumns(text_column, label_column, separator, missing_label, group_column, pair_columns)
        super().__init__(columns=self.labels, path=path, **options)
        self.hash_split = apart(self.hash_split, stratify, group_column)

    def cache_key(self) -> dict[str, Any]:
        return cut_so(super().cache_key(), self.hash_split)

    def read(self) -> Iterator[tuple[Split, Any]]:
        return told(super().read(), self.hash_split, self.labels.group_column)

    def find(self, option: str, path: str) -> list[Unit]:
        return tables(option, path, listed(option, path, is_table, TABLES))

    def examples(self, split: Split) -> Iterator[Any]:
        return self.labels.labelled(super().examples(split), self.origin(split))


def apart(split: HashSplit, stratify: bool, group_column: str | None) -> HashSplit:
    """How a split is cut: so that each class has its share, or by the groups that the examples name."""
    if stratify and group_column:
        raise ValueError("data.stratify and data.group_column: one of them, as a group has texts of several classes")
    return replace(split, stratum=_classes_of if stratify else None)


def cut_so(cache_key: dict[str, Any], split: HashSplit) -> dict[str, Any]:
    """The key of a source, with how it is cut where that is not as ever."""
    kept = {name: x for name, x in cache_key.items() if x is not None or name not in ("group_column", "pair_columns")}
    return kept | ({"stratify": True} if split.stratum else {})


def told(read: Iterator[tuple[Split, Any]], split: HashSplit, group_column: str | None) -> Iterator[tuple[Split, Any]]:
    """What is read; and in the end how large the splits are, where what they are cut by has a say in it."""
    return _counted(read, group_column) if group_column or split.stratum else read


def _counted(read: Iterator[tuple[Split, Any]], group_column: str | None) -> Iterator[tuple[Split, Any]]:
    counts: Counter[Split] = Counter()
    for side, example in read:
        counts[side] += 1
        yield side, example
    sizes = ", ".join(f"{side} {counts[side]:,} ({counts[side] / counts.total():.1%})" for side in counts)
    if group_column:
        _say_once(f"data.group_column={group_column}: all examples of a group are in one split, so there are {sizes}")
    else:
        _say_once(f"data.stratify: each class has its share in each split, one of fewer than three trains: {sizes}")


def _classes_of(example: LabeledText) -> str:
    return "\n".join(sorted(example.labels))


@cache
def _say_once(line: str, level: int = logging.INFO) -> None:
    """However often the data are read."""
    log.log(level, "%s", line)
