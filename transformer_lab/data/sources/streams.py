"""Text files, gzipped or not, read as UTF-8; a damaged one is told with the number of the line."""

import gzip
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import AnyStr, TextIO

LOOKED_AT = 10_000  # carriage returns at the beginning of a file, without a line feed among them, that end its lines

NAMED = 10  # lines with the same mistake, of however many there are


class Unreadable(ValueError):
    """A file that is no text in UTF-8, or is damaged as a whole: nothing that a look at one row could mend."""


@dataclass
class Mistakes:
    """Lines in which the same is wrong: they are told together, with what is wrong in the first of them."""

    first: str = ""
    others: list[str] = field(default_factory=list)  # where the next few are
    count: int = 0

    def add(self, where: str, what: str) -> None:
        self.count += 1
        if self.count == 1:
            self.first = f"{where}: {what}"
        elif self.count <= NAMED:
            self.others.append(where)

    def tell(self) -> None:
        """Raises ValueError if there are any."""
        if self.count:
            more = f"; alike in {self.count - 1:,} more: {', '.join(self.others)}" if self.others else ""
            raise ValueError(f"{self.first}{more}{', …' if self.count > NAMED else ''}")


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
        raise Unreadable(f"{place(file, bytes.decode)}: not UTF-8; save the file as UTF-8") from error
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise Unreadable(f"{file}: cannot be read: {reason}") from error


def lines(file: Path) -> Iterator[tuple[str, str]]:
    """(file:line, line): only \\n ends a line, or \\r where none is, for a text may hold any other sign like it."""
    with opened(file, newline="") as stream:
        for number, line in enumerate(ended(stream, "\n", "\r"), 1):
            yield f"{file}:{number}", line.removesuffix("\n").removesuffix("\r")


def ended(pieces: Iterable[AnyStr], line_feed: AnyStr, carriage_return: AnyStr) -> Iterator[AnyStr]:
    """Lines of pieces that end with either or both: a carriage return ends one only where no line feed comes soon."""
    pieces = iter(pieces)
    begin: list[AnyStr] = []
    for piece in pieces:
        begin.append(piece)
        if piece.endswith(line_feed) or len(begin) > LOOKED_AT:
            break
    old = bool(begin) and not begin[-1].endswith(line_feed)  # as on old Macs
    ends = (line_feed, carriage_return) if old else (line_feed,)
    held: list[AnyStr] = []
    for piece in chain(begin, pieces):
        held.append(piece)
        if piece.endswith(ends):
            yield line_feed[:0].join(held)
            held = []
    if held:
        yield line_feed[:0].join(held)


def clean(text: str, where: str) -> str:
    """With \\n for every line end; a ValueError for what no text file could hold."""
    if "\0" in text:
        raise Unreadable(f"{where}: a NUL character; is it text?")
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
            pieces = chain.from_iterable(line.splitlines(keepends=True) for line in stream)
            for number, line in enumerate(ended(pieces, b"\n", b"\r"), 1):
                try:
                    check(line)
                except ValueError:
                    return f"{file}:{number}"
    except (OSError, EOFError, zlib.error):
        pass  # the file itself is damaged, and the caller has said so
    return str(file)


def _zipped(file: Path) -> bool:
    return file.name.lower().endswith(".gz")
