"""Rows of CSV, TSV, JSON lines, JSON or Parquet, each with its place, and the columns that make examples of them."""

import csv
import json
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from transformer_lab.data.examples import Example
from transformer_lab.data.sources.base import no_such_name
from transformer_lab.data.sources.streams import clean, lines, opened, suffix

Quoting = Literal[0, 3]  # csv.QUOTE_MINIMAL, csv.QUOTE_NONE
Row = dict[str, Any]
Rows = Iterable[tuple[str, Row]]  # a row's place, as file:line or in words, and its values by column
ROWS_AT_ONCE = 100  # of a Parquet file: rows may be whole books
LONGEST_CELL = 1 << 28  # characters; a quote that is never closed makes a cell of all the rest
csv.field_size_limit(max(LONGEST_CELL, csv.field_size_limit()))


@dataclass(frozen=True)
class Columns(ABC):
    """Which columns of a table make an example; each field is the option data.FIELD, and most name a column."""

    @abstractmethod
    def names(self) -> dict[str, str]:
        """The options that name columns, with what they name."""

    @abstractmethod
    def example(self, where: str, row: Row) -> Example:
        """What a row says; a ValueError that tells `where` if it says nothing sensible."""

    def __call__(self, rows: Rows, table: str | Path) -> Iterator[Example]:
        checked = False
        for where, row in rows:
            if not checked:
                for option, name in self.names().items():
                    if name not in row:
                        raise no_such_name(f"data.{option}", name, row, f"no such column in {table}")
                checked = True
            yield self.example(where, row)

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


def rows(file: Path, columns: dict[str, str]) -> Rows:
    """All rows of a file, in bounded memory unless it is .json; other columns than those asked for may be missing."""
    if not file.stat().st_size:  # Parquet's library takes an empty one for damaged
        return ()
    return READERS[suffix(file)](file, list(columns.values()))


def _csv(file: Path, columns: list[str]) -> Rows:
    return _separated(file, ",", csv.QUOTE_MINIMAL)


def _tsv(file: Path, columns: list[str]) -> Rows:
    return _separated(file, "\t", _quoting(file, file.stat().st_mtime_ns))


@lru_cache
def _quoting(file: Path, changed: int) -> Quoting:
    """Some quote the cells of a TSV, to others a quote is a quote like any; what can be read as the former, is."""
    try:
        deque(_separated(file, "\t", csv.QUOTE_MINIMAL), maxlen=0)
    except ValueError:
        try:
            deque(_separated(file, "\t", csv.QUOTE_NONE), maxlen=0)
        except ValueError:
            return csv.QUOTE_MINIMAL  # it is damaged, either way
        return csv.QUOTE_NONE
    return csv.QUOTE_MINIMAL


def _separated(file: Path, delimiter: str, quoting: Quoting) -> Rows:
    with opened(file, newline="") as stream:
        reader = csv.reader(stream, delimiter=delimiter, quoting=quoting, strict=True)
        header: list[str] = []
        while True:
            where = f"{file}:{reader.line_num + 1}"  # a cell may hold line ends: where the row begins
            try:
                cells = next(reader, None)
            except csv.Error as error:
                raise ValueError(f"{where}: not readable as {suffix(file)[1:]}: {error}") from error
            if cells is None:
                return
            if not header:
                header = cells
                if twice := {name for name in filter(None, header) if header.count(name) > 1}:
                    raise ValueError(f"{where}: two columns have the name {min(twice)}")
            elif cells and len(cells) != len(header):
                raise ValueError(f"{where}: {len(cells)} cells in this row and {len(header)} in the header")
            elif cells:
                yield where, dict(zip(header, cells, strict=True))


def _json_lines(file: Path, columns: list[str]) -> Rows:
    for where, line in lines(file):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{where}: not readable as JSON: {getattr(error, 'msg', error)}") from error
            yield where, _object(where, row)


def _json(file: Path, columns: list[str]) -> Rows:
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
    yield from _json_lines(file, columns)


def _object(where: str, row: Any) -> Row:
    if not isinstance(row, dict):
        raise ValueError(f"{where}: {row!r:.40} is no object, so it has no columns")
    return row


def _parquet(file: Path, columns: list[str]) -> Rows:
    from pyarrow import ArrowException, parquet  # here, for it costs a while

    try:
        table = parquet.ParquetFile(file)
        schema = table.schema_arrow
        asked = columns if set(columns) <= set(schema.names) else None  # None, for one of them may lie in another
        batches = table.iter_batches(ROWS_AT_ONCE, columns=asked)
        records = (record for batch in batches for record in batch.to_pylist())
        numbered = ((f"row {number} of {file}", record) for number, record in enumerate(records, 1))
        yield from named(numbered, _classes(schema.metadata or {}))
    except (ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"{file}: not readable as parquet: {reason}") from error


def _classes(metadata: dict[bytes, bytes]) -> dict[str, list[str]]:
    """What the hub's library wrote into a file about columns that hold the numbers of classes."""
    features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    kinds = {name: kind.get("feature", kind) for name, kind in features.items() if isinstance(kind, dict)}
    return {name: kind["names"] for name, kind in kinds.items() if kind.get("_type") == "ClassLabel"}


READERS: dict[str, Callable[[Path, list[str]], Rows]] = {
    ".jsonl": _json_lines, ".json": _json, ".csv": _csv, ".tsv": _tsv, ".parquet": _parquet,
}  # fmt: skip
