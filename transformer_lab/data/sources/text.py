"""Files of the user's own: plain text, or one column of JSON lines, CSV, TSV or Parquet."""

import glob
import gzip
import json
import logging
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib import metadata
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

from transformer_lab.data.examples import Document, Split
from transformer_lab.data.sources.base import Cut, Source, no_such_name, no_such_path

log = logging.getLogger(__name__)
TABLES = {".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}
# What is read of a folder; a file that is named, or matches a glob, is read whatever its suffix.
PROSE = {".txt", ".text", ".md", ".markdown", ".rst", ".tex", ".org", ".adoc", ".html", ".py", ".c", ".h", ".cpp"}
PROSE |= {".java", ".js", ".ts", ".go", ".rs", ".sh"}
PIECE = 1_000_000  # characters of a document held in memory at once
LONGEST_LINE = 1 << 16  # pieces end with a line, where lines are not longer than this


class Text(Source):
    """One document per file, or per row of a file with columns."""

    example_type = Document

    def __init__(
        self,
        *,
        path: str,
        column: str = "text",
        validation: float = 0.05,
        test: float = 0.05,
        validation_path: str | None = None,
        test_path: str | None = None,
    ) -> None:
        self.column = column
        self.cut = Cut(validation=0 if validation_path else validation, test=0 if test_path else test)
        self.paths: dict[Split, tuple[str, str]] = {"train": ("data.path", path)}
        if validation_path:
            self.paths["validation"] = ("data.validation_path", validation_path)
        if test_path:
            self.paths["test"] = ("data.test_path", test_path)
        self.files = {split: _files(option, path) for split, (option, path) in self.paths.items()}

    def signature(self) -> dict[str, Any]:
        facts = {}
        for split, files in self.files.items():
            stats = ((file.as_posix(), file.stat()) for file in files)
            facts[split] = [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]
        return {
            "source": "text",
            "files": facts,
            "column": self.column,
            "validation": self.cut.validation,
            "test": self.cut.test,
            "reader": metadata.version("datasets") if any(map(_is_table, chain(*self.files.values()))) else None,
        }

    def read(self) -> Iterator[tuple[Split, Document]]:
        yield from self.cut(partial(self._documents, "train"))
        for split in self.files:
            if split != "train":
                yield from ((split, document) for document in self._documents(split))

    def _documents(self, split: Split) -> Iterator[Document]:
        option, path = self.paths[split]
        each = (_rows(file, self.column) if _is_table(file) else _pieces(file) for file in self.files[split])
        return filled(chain.from_iterable(each), f"{option}={path}")


def filled(documents: Iterable[Document], where: str) -> Iterator[Document]:
    """Without the documents of nothing but white space, which are counted; there has to be another one."""
    found = blank = 0
    goes_on = False
    for document in documents:
        if goes_on or document.more or document.text.strip():
            found += 1
            yield document
        else:
            blank += 1
        goes_on = document.more
    if blank:
        log.info("%s: skipped %s without any text", where, f"{blank:,} documents" if blank > 1 else "a document")
    if not found:
        raise ValueError(f"{where}: no text in it")


def texts(rows: Iterable[dict[str, Any]], column: str, where: str | Path) -> Iterator[Document]:
    """The text column of a table as documents; line ends are \\n whatever they were."""
    for number, row in enumerate(rows, 1):
        if column not in row and number == 1:
            raise no_such_name("data.column", column, row, f"no such column in {where}")
        text = row.get(column)
        if text is not None and not isinstance(text, str):
            raise ValueError(f"data.column={column}: row {number} of {where} holds {text!r:.40}, which is not text")
        if text and "\0" in text:
            raise ValueError(f"data.column={column}: row {number} of {where} holds a NUL character: is it text?")
        yield Document(text.replace("\r\n", "\n").replace("\r", "\n") if text else "")


def _files(option: str, path: str) -> list[Path]:
    place = Path(path).expanduser()
    if place.is_dir():
        found = [
            file
            for file in place.rglob("*")
            if _suffix(file) in PROSE | TABLES.keys() and file.is_file() and not _hidden(file.relative_to(place))
        ]
        reason = f"no file in it ends with {', '.join(sorted(TABLES))} or a suffix of plain text such as .txt or .md"
    elif place.exists():
        found, reason = [place], ""
    elif glob.has_magic(path):
        found = [Path(match) for match in glob.glob(str(place), recursive=True) if os.path.isfile(match)]
        reason = "no file matches"
    else:
        raise no_such_path(option, path)
    if not found:
        raise ValueError(f"{option}={path}: {reason}")
    return sorted(found)


def _hidden(file: Path) -> bool:
    return any(part.startswith(".") for part in file.parts)


def _suffix(file: Path) -> str:
    return Path(file.name.lower().removesuffix(".gz")).suffix


def _is_table(file: Path) -> bool:
    return _suffix(file) in TABLES


def _open(file: Path) -> TextIO:
    """As text with \\n for every line end, and without a byte order mark."""
    return gzip.open(file, "rt", encoding="utf-8-sig") if _zipped(file) else file.open(encoding="utf-8-sig")


def _zipped(file: Path) -> bool:
    return file.name.lower().endswith(".gz")


def _pieces(file: Path) -> Iterator[Document]:
    try:
        with _open(file) as stream:
            piece = _piece(stream, file)
            while piece:
                following = _piece(stream, file)
                yield Document(piece, more=bool(following))
                piece = following
    except UnicodeDecodeError as error:
        raise ValueError(f"{_place(file, bytes.decode)}: not UTF-8; save the file as UTF-8") from error
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{file}: cannot be read: {error}") from error


def _piece(stream: TextIO, file: Path) -> str:
    piece = stream.read(PIECE - LONGEST_LINE)
    piece += "" if piece.endswith("\n") else stream.readline(LONGEST_LINE)
    if "\0" in piece:
        raise ValueError(f"{_place(file, _no_nul)}: a NUL character; is it a text file?")
    return piece


def _rows(file: Path, column: str) -> Iterator[Document]:
    if file.stat().st_size:  # the library takes an empty one for damaged
        yield from texts(_table(file, column), column, file)


def _table(file: Path, column: str) -> Iterator[dict[str, Any]]:
    """The rows of a file, with any error of the libraries that read it in one line."""
    from datasets import IterableDataset  # here, for it costs seconds; its load_dataset would call home first

    logging.getLogger("datasets.packaged_modules").setLevel(logging.CRITICAL)  # errors are told below, once
    try:
        if _suffix(file) in (".csv", ".tsv"):
            separator = "," if _suffix(file) == ".csv" else "\t"
            as_written = {"converters": {column: str}, "keep_default_na": False}  # "12" and "NA" are text too
            yield from IterableDataset.from_csv(str(file), sep=separator, **as_written)
        else:
            yield from getattr(IterableDataset, f"from_{TABLES[_suffix(file)]}")(str(file))
    except UnicodeDecodeError as error:
        raise ValueError(f"{_place(file, bytes.decode)}: not UTF-8; save the file as UTF-8") from error
    except Exception as error:  # each format's library has errors of its own
        place = _place(file, _json_or_blank) if _suffix(file) == ".jsonl" else file
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"{place}: not readable as {_suffix(file)[1:]}: {reason}") from error


def _no_nul(line: bytes) -> None:
    if b"\0" in line:
        raise ValueError


def _json_or_blank(line: bytes) -> None:
    if line.strip():
        json.loads(line)


def _place(file: Path, check: Callable[[bytes], object]) -> str:
    """file:line of the first line that `check` refuses: a second, slow look once it is known that there is one."""
    try:
        with gzip.open(file) if _zipped(file) else file.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                try:
                    check(line)
                except ValueError:
                    return f"{file}:{number}"
    except (OSError, EOFError, zlib.error):
        pass  # the file itself is damaged, and the caller has said so
    return str(file)
