"""Text files, gzipped or not, read as UTF-8; a damaged one is told with the number of the line."""

import gzip
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


def unzipped(file: Path) -> Path:
    return file.with_name(file.name[:-3]) if _zipped(file) else file


def suffix(file: Path) -> str:
    return unzipped(file).suffix.lower()


@contextmanager
def opened(file: Path, *, newline: str | None = None) -> Iterator[TextIO]:
    """Without a byte order mark. By default \\n is what ends a line, whatever did in the file."""
    try:
        with (gzip.open if _zipped(file) else open)(file, "rt", encoding="utf-8-sig", newline=newline) as stream:
            yield stream
    except UnicodeDecodeError as error:
        raise ValueError(f"{place(file, bytes.decode)}: not UTF-8; save the file as UTF-8") from error
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{file}: cannot be read: {error}") from error


def lines(file: Path) -> Iterator[tuple[str, str]]:
    """(file:line, line): only \\n ends a line, for a text may hold any other sign of Unicode that looks like an end."""
    with opened(file, newline="\n") as stream:
        for number, line in enumerate(stream, 1):
            yield f"{file}:{number}", line.removesuffix("\n").removesuffix("\r")


def clean(text: str, where: str) -> str:
    """With \\n for every line end; a ValueError for what no text file could hold."""
    if "\0" in text:
        raise ValueError(f"{where}: a NUL character; is it text?")
    try:
        text.isascii() or text.encode()
    except UnicodeEncodeError as error:  # JSON can spell it, "\ud800"
        raise ValueError(f"{where}: half of a character, U+{ord(text[error.start]):04X}") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def no_nul(line: bytes) -> None:
    if b"\0" in line:
        raise ValueError


def place(file: Path, check: Callable[[bytes], object]) -> str:
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


def _zipped(file: Path) -> bool:
    return file.name.lower().endswith(".gz")
