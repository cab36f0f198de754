"""Documents in files of the user's own: plain text, or one column of CSV, TSV, JSON lines, JSON or Parquet."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TextIO, Unpack

from transformer_lab.data.examples import Document
from transformer_lab.data.sources.files import TABLES, FileOptions, Files, Unit, is_table, listed
from transformer_lab.data.sources.streams import Unreadable, no_nul, opened, place, suffix
from transformer_lab.data.sources.tables import Columns, Row, Rows

# What is read of a folder; a file that is named, or matches a glob, is read whatever its suffix.
PLAIN = {".txt", ".text"}
PROSE = {*PLAIN, ".md", ".markdown", ".rst", ".tex", ".org", ".adoc", ".html", ".py", ".c", ".h", ".cpp"}
PROSE |= {".java", ".js", ".ts", ".go", ".rs", ".sh"}
PIECE = 1_000_000  # characters of a document held in memory at once
LONGEST_LINE = 1 << 16  # pieces end with a line, where lines are not longer than this


@dataclass(frozen=True)
class TextColumn(Columns):
    """A document a row; with `document_start` a row is a line, and a document begins where one matches."""

    column: str = "text"
    document_start: str | None = None

    def __post_init__(self) -> None:
        try:
            re.compile(self.document_start or "")
        except re.error as error:
            raise ValueError(f"data.document_start={self.document_start}: no regular expression: {error}") from error

    def names(self) -> dict[str, str]:
        return {"column": self.column}

    def example(self, where: str, row: Row) -> Document:
        return Document(self.text(where, row, "column"))

    def __call__(self, rows: Rows, table: str | Path) -> Iterator[Document]:
        documents: Iterator[Any] = super().__call__(rows, table)
        if self.document_start is None:
            return documents
        texts = (document.text.removesuffix("\n") for document in documents)
        return joined((f"{line}\n" for text in texts for line in text.split("\n")), self.document_start)


class Text(Files):
    """One document per file, or per row of a file with columns; or from each line that matches `document_start` on."""

    example_type = Document

    def __init__(
        self, *, path: str, column: str = "text", document_start: str | None = None, **options: Unpack[FileOptions]
    ) -> None:
        self.document_start = document_start
        super().__init__(columns=TextColumn(column, document_start), path=path, **options)

    def find(self, option: str, path: str) -> list[Unit]:
        ends = f"{TABLES} or a suffix of plain text such as .txt or .md"
        return [(file,) for file in listed(option, path, lambda file: is_table(file) or suffix(file) in PROSE, ends)]

    def stem(self, unit: Unit) -> str:
        return super().stem(unit) if is_table(unit[0]) or suffix(unit[0]) in PLAIN else ""  # train.py is a program

    def examples_of(self, unit: Unit) -> Iterator[Any]:
        if is_table(unit[0]):
            return super().examples_of(unit)
        return _pieces(unit[0]) if self.document_start is None else joined(_lines(unit[0]), self.document_start)


def joined(lines: Iterable[str], document_start: str) -> Iterator[Document]:
    """Documents of lines, in pieces; each begins with a line that matches, but for what comes before the first."""
    starts = re.compile(document_start).search
    held: list[str] = []
    size, filled, begins = 0, False, True  # of the piece in hand; whether the document says anything; a line begins
    for line in lines:
        if filled and begins and starts(line.removesuffix("\n")):
            yield Document("".join(held))
            held, size, filled = [], 0, False
        elif held and size + len(line) > PIECE:
            yield Document("".join(held), more=True)
            held, size = [], 0
        held.append(line)
        size += len(line)
        filled = filled or not line.isspace()
        begins = line.endswith("\n")
    if held:
        yield Document("".join(held))


def _pieces(file: Path) -> Iterator[Document]:
    with opened(file) as stream:
        piece = _piece(stream, file)
        while piece:
            following = _piece(stream, file)
            yield Document(piece, more=bool(following))
            piece = following


def _piece(stream: TextIO, file: Path) -> str:
    piece = stream.read(PIECE - LONGEST_LINE)
    piece += "" if piece.endswith("\n") else stream.readline(LONGEST_LINE)
    return _checked(piece, file)


def _lines(file: Path) -> Iterator[str]:
    """A line that is longer than LONGEST_LINE comes in parts."""
    with opened(file) as stream:
        yield from (_checked(line, file) for line in iter(partial(stream.readline, LONGEST_LINE), ""))


def _checked(text: str, file: Path) -> str:
    if "\0" in text:
        raise Unreadable(f"{place(file, no_nul)}: a NUL character; is it a text file?")
    return text
