"""Rows of CSV and TSV: what parts the cells and whether they are quoted is found out, unless it is told."""

import csv
import logging
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TextIO

from transformer_lab.data.sources.streams import Mistakes, ended, opened, suffix

Quoting = Literal["minimal", "none"]
STYLES: dict[Quoting, Literal[0, 3]] = {"minimal": csv.QUOTE_MINIMAL, "none": csv.QUOTE_NONE}
DELIMITERS = {".csv": ",", ".tsv": "\t"}
OTHERS = ("\t", ",", ";", "|")  # what else is looked for, where a header does not hold the columns that are asked for
SPELLED = {"tab": "\t", "comma": ",", "semicolon": ";", "pipe": "|", r"\t": "\t"}  # what a shell would take otherwise
STRAY = "\udc0d"  # stands for a carriage return: no file in UTF-8 holds half of a character
LONGEST_CELL = 1 << 28  # characters; a quote that is never closed makes a cell of all the rest
csv.field_size_limit(max(LONGEST_CELL, csv.field_size_limit()))
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cells:
    """How a line is parted into cells; what is None is found out, for each file.

    `delimiter` stands between two of them: a sign, or "tab", "comma", "semicolon", "pipe". `quoting` is "minimal" (a
    cell may stand in quotes, and then hold delimiters, ends of lines, and quotes written twice) or "none" (a quote is a
    sign like any).
    """

    delimiter: str | None = None
    quoting: Quoting | None = None

    def __post_init__(self) -> None:
        if self.delimiter is not None and (len(sign := self.sign(self.delimiter)) != 1 or sign in '"\r\n\0'):
            raise ValueError(
                f"data.delimiter={self.delimiter!r}: one character, or tab, comma, semicolon, pipe; null finds out"
            )

    def sign(self, delimiter: str) -> str:
        return SPELLED.get(delimiter, delimiter)


def separated(file: Path, columns: Collection[str], cells: Cells) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row with its place, which is the line that it begins in."""
    state = file.stat().st_mtime_ns, file.stat().st_size
    delimiter = cells.sign(cells.delimiter) if cells.delimiter else _delimiter(file, frozenset(columns), state)
    return _rows(file, delimiter, cells.quoting or _quoting(file, delimiter, state))


@cache
def _delimiter(file: Path, columns: frozenset[str], state: tuple[int, int]) -> str:
    """That of the name's end, unless only with another one the header holds the columns that are asked for."""
    usual = DELIMITERS[suffix(file)]
    with opened(file, newline="") as stream:
        header = next((line for line in stream if line.strip()), "")
    for sign in (usual, *OTHERS):
        if columns and columns <= set(next(csv.reader([header], delimiter=sign), ())):
            if sign != usual:
                log.info("%s: cells are parted by %s, as its header says", file, "tabs" if sign == "\t" else sign)
            return sign
    return usual


@cache
def _quoting(file: Path, delimiter: str, state: tuple[int, int]) -> Quoting:
    """CSV quotes its cells (RFC 4180). Some quote those of a TSV, to others a quote is a quote like any.

    A TSV that can be read as the former is, but not where a cell would then go over several lines, each of which is a
    row as well: two quotes in two rows look like that. (Of a single column any line is a row, so that tells nothing.)
    """
    with opened(file, newline="") as stream:
        if not any('"' in line for line in stream):
            return "minimal"
    tsv = suffix(file) == ".tsv"
    columns = _reading(file, delimiter, "none")[0]
    valid, several = _reading(file, delimiter, "minimal") if columns else (1, 0)
    doubtful = f"{several:,} of its cells would go over several lines, each of which is a row as well"
    if tsv and columns and not valid:
        log.info("%s: read without quoted cells: a quote is a sign of the text", file)
        return "none"
    if tsv and columns > 1 and several:
        log.warning("%s: read without quoted cells, for %s; data.quoting=minimal if they do", file, doubtful)
        return "none"
    if columns > 1 and several:
        log.warning("%s: read with quoted cells, though %s; data.quoting=none if they are", file, doubtful)
    elif tsv:
        log.info("%s: read with quoted cells; data.quoting=none if a quote is a sign of the text", file)
    return "minimal"


def _reading(file: Path, delimiter: str, quoting: Quoting) -> tuple[int, int]:
    """How many columns a file then has, and how many of its rows go over several lines; 0, 0 if it cannot be so."""
    columns = several = 0
    try:
        for _, cells, lines in _parted(file, delimiter, quoting):
            if not columns and quoting == "none" and any(cell.startswith('"') for cell in cells):
                return 0, 0  # a header that stands in quotes
            if columns and len(cells) != columns:
                return 0, 0
            columns, several = len(cells), several + (lines > 1)
    except ValueError:
        return 0, 0
    return columns, several


def _rows(file: Path, delimiter: str, quoting: Quoting) -> Iterator[tuple[str, dict[str, Any]]]:
    parted = _parted(file, delimiter, quoting)
    header = next(parted, ("", [], 0))[1]
    mistakes = Mistakes()
    for where, cells, _ in parted:
        if len(cells) != len(header):
            mistakes.add(where, f"{len(cells)} cells in this row and {len(header)} in the header")
        elif not mistakes.count:  # a run that will end needs nothing more
            yield where, dict(zip(header, cells, strict=True))
    mistakes.tell()


def _parted(file: Path, delimiter: str, quoting: Quoting) -> Iterator[tuple[str, list[str], int]]:
    """The header and the rows, each with its place and how many lines it goes over."""
    with opened(file, newline="") as stream:
        reader = csv.reader(_lines(stream), delimiter=delimiter, quoting=STYLES[quoting], strict=True)
        header: list[str] = []
        while True:
            before = reader.line_num  # a cell may hold ends of lines: the row begins in the next one
            where = f"{file}:{before + 1}"
            try:
                cells = next(reader, None)
            except csv.Error as error:
                hint = "; data.quoting=none if quotes are signs of the text" if quoting == "minimal" else ""
                raise ValueError(f"{where}: not readable as {suffix(file)[1:]}: {error}{hint}") from error
            if cells is None:
                return
            if any(STRAY in cell for cell in cells):
                cells = [cell.replace(STRAY, "\r") for cell in cells]
            if not header:
                if twice := _twice(cells):
                    raise ValueError(f"{where}: two columns have the name {twice}")
                header = cells
            elif len(header) == 1 and not cells:
                cells = [""]  # of a single column, a blank line is a row (RFC 4180)
            if cells:
                yield where, cells, reader.line_num - before


def _lines(stream: TextIO) -> Iterator[str]:
    """A carriage return within a line is held back from csv.reader, which would end the row there: neither pandas nor
    csv.writer with lines that end with \\n quotes a cell for one (3.1 and Python 3.11)."""
    for line in ended(stream, "\n", "\r"):
        text = line.removesuffix("\n").removesuffix("\r")
        yield text.replace("\r", STRAY) + "\n" if "\r" in text else line


def _twice(header: list[str]) -> str | None:
    return next((name for name in header if name and header.count(name) > 1), None)
