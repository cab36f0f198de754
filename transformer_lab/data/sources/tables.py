"""Rows of CSV, TSV, JSON lines, JSON or Parquet, each with its place, and the columns that make examples of them."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformer_lab.data.examples import Example
from transformer_lab.data.sources.base import no_such_name
from transformer_lab.data.sources.separated import Cells, separated
from transformer_lab.data.sources.streams import Mistakes, Unreadable, clean, lines, opened, suffix

Row = dict[str, Any]
Rows = Iterable[tuple[str, Row]]  # a row's place, as file:line or in words, and its values by column
ROWS_AT_ONCE = 100  # of a Parquet file: rows may be whole books


@dataclass(frozen=True)
class Columns(ABC):
    """Which columns of a table make an example; each field is the option data.FIELD, and most name a column."""

    @abstractmethod
    def names(self) -> dict[str, str]:
        """The options that name columns, with what they name; first that of the text which a model is given."""

    @abstractmethod
    def example(self, where: str, row: Row) -> Example:
        """What a row says; a ValueError that tells `where` if it says nothing sensible."""

    def __call__(self, rows: Rows, table: str | Path) -> Iterator[Example]:
        for where, row, _ in self._checked(rows, table, self.names()):
            yield self.example(where, row)

    def given(self, rows: Rows, table: str | Path) -> Iterator[tuple[str, str, Row]]:
        """Place, text and whole of each row that a model is given: what the model should say need not be there."""
        for where, row, whole in self._checked(rows, table, self.inputs()):
            yield where, self.input(where, row), whole

    def inputs(self) -> list[str]:
        """The options whose columns make the text that a model is given."""
        return [next(iter(self.names()))]

    def input(self, where: str, row: Row) -> str:
        """That text: cells one below the other, empty ones left out."""
        return "\n".join(filter(None, self.cells(where, row)))

    def cells(self, where: str, row: Row) -> list[str]:
        """What it is made of."""
        return [self.text(where, row, option) for option in self.inputs()]

    def _checked(self, rows: Rows, table: str | Path, options: Iterable[str]) -> Iterator[tuple[str, Row, Row]]:
        for number, (where, whole) in enumerate(rows):
            row = self.flat(whole)
            for option in options if number == 0 else ():
                if (name := self.names()[option]) not in row:
                    raise no_such_name(f"data.{option}", name, row, f"no such column in {table}")
            yield where, row, whole

    def flat(self, row: Row) -> Row:
        """The row in which the columns stand."""
        return row

    def text(self, where: str, row: Row, option: str) -> str:
        """One cell, "" where there is none; line ends are \\n whatever they were."""
        name = self.names()[option]
        value = row.get(name)
        if value is not None and not isinstance(value, str):
            raise ValueError(f"data.{option}={name}: {where} holds {value!r:.40}, which is not text")
        return clean(value or "", where)


def named(rows: Rows, classes: dict[str, list[str]]) -> Rows:
    """With the names of classes where a column holds their numbers; a number that is none, such as -1, becomes None."""

    def name(names: list[str], value: Any) -> Any:
        if isinstance(value, list):
            return [name(names, one) for one in value]
        return names[value] if isinstance(value, int) and 0 <= value < len(names) else None

    if not classes:
        return rows
    return ((where, row | {c: name(classes[c], row[c]) for c in classes.keys() & row.keys()}) for where, row in rows)


def rows(file: Path, columns: Collection[str], cells: Cells = Cells(), *, others: bool = False) -> Rows:  # noqa: B008
    """All rows of a file, in bounded memory unless it is .json; `others` says whether all columns are wanted."""
    if not file.stat().st_size:  # Parquet's library takes an empty one for damaged
        return ()
    return READERS[suffix(file)](file, columns, cells, others)


def _json_lines(file: Path, *_: Any) -> Rows:
    mistakes = Mistakes()
    for where, line in lines(file):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                mistakes.add(where, f"not readable as JSON: {getattr(error, 'msg', error)}")
                continue
            if not mistakes.count:  # a run that will end needs nothing more
                yield where, _object(where, row)
    mistakes.tell()


def _json(file: Path, *_: Any) -> Rows:
    """A list of objects; what begins with an object is JSON lines, whatever the file is called."""
    with opened(file) as stream:
        begin = stream.read(1)
        while begin.isspace():
            begin = stream.read(1)
        if begin == "[":
            try:
                table = json.loads(begin + stream.read())
            except (ValueError, RecursionError) as error:
                where = f"{file}:{getattr(error, 'lineno', 1)}"
                raise ValueError(f"{where}: not readable as JSON: {getattr(error, 'msg', error)}") from error
            for number, row in enumerate(table, 1):
                where = f"row {number} of {file}"
                yield where, _object(where, row)
            return
    yield from _json_lines(file)


def _object(where: str, row: Any) -> Row:
    if not isinstance(row, dict):
        raise ValueError(f"{where}: {row!r:.40} is no object, so it has no columns")
    return row


def _parquet(file: Path, columns: Collection[str], cells: Cells, others: bool) -> Rows:
    from pyarrow import ArrowException, parquet  # here, for it costs a while

    try:
        table = parquet.ParquetFile(file)
        schema = table.schema_arrow
        # All of them, where one that is asked for may lie in another.
        asked = None if others or not set(columns) <= set(schema.names) else list(columns)
        batches = table.iter_batches(ROWS_AT_ONCE, columns=asked)
        records = (record for batch in batches for record in batch.to_pylist())
        numbered = ((f"row {number} of {file}", record) for number, record in enumerate(records, 1))
        yield from named(numbered, _classes(schema.metadata or {}))
    except (ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise Unreadable(f"{file}: not readable as parquet: {reason}") from error


def _classes(metadata: dict[bytes, bytes]) -> dict[str, list[str]]:
    """What the hub's library wrote into a file about columns that hold the numbers of classes."""
    features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    kinds = {name: kind.get("feature", kind) for name, kind in features.items() if isinstance(kind, dict)}
    return {name: kind["names"] for name, kind in kinds.items() if kind.get("_type") == "ClassLabel"}


def _separated(file: Path, columns: Collection[str], cells: Cells, others: bool) -> Rows:
    return separated(file, columns, cells)


READERS: dict[str, Callable[[Path, Collection[str], Cells, bool], Rows]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
    ".csv": _separated,
    ".tsv": _separated,
    ".parquet": _parquet,
}
