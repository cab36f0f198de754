"""Files with a seal: their sizes are checked when they are opened, every block of them when it is first read.

    seal.json    one line with the files and their sizes, and the SHA-256 of `checksums`; another with that line's own
    checksums    a CRC-32 of every block of every file, in the order of that list

It tells damage: a file that was cut, a bit that flipped, a disk that lied. Whoever means harm can seal what he likes.
"""

import errno
import hashlib
import json
import mmap
import os
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO
from weakref import WeakSet

import numpy as np

from transformer_lab.folders import flush

FORMAT = 1  # raise it when the two files above change their meaning
SEAL, CHECKSUMS = "seal.json", "checksums"
BLOCK = 4096  # bytes: a page, so that no more is read for a row here and there than the system reads anyway
AT_ONCE = 256  # blocks held in memory while sealing
SMALL = 1 << 24  # bytes of a file that may stay in memory
# What else than damage keeps a file from being opened (permissions, too many open files) is no reason to replace it.
DAMAGE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EIO, errno.ENXIO}
_maps: WeakSet[mmap.mmap] = WeakSet()  # of larger ones


class Damaged(ValueError):
    """Prepared data that are not what was written; in one line, also where PyTorch hands it on from a loader process
    as the text of a whole traceback."""

    def __init__(self, line: str) -> None:
        super().__init__(line.strip().rpartition("\n")[2].removeprefix(f"{__name__}.{type(self).__name__}: "))


def seal(folder: Path) -> None:
    """Seal all files of a folder, except hidden ones, and flush them to the disk."""
    files = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    checksums = b"".join(part for path in files for part in _checksums_of(path))
    (folder / CHECKSUMS).write_bytes(checksums)
    sizes = {path.name: path.stat().st_size for path in files}
    line = json.dumps({"format": FORMAT, "files": sizes, "checksums": hashlib.sha256(checksums).hexdigest()})
    (folder / SEAL).write_text(f"{line}\n{hashlib.sha256(line.encode()).hexdigest()}\n", encoding="utf-8")
    for path in (*files, folder / CHECKSUMS, folder / SEAL, folder):
        flush(path)


class Sealed:
    """A sealed folder. Its methods raise Damaged, in one line that names the file, for what is not as it was written;
    a ValueError for what this process may not read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        lines = self._whole(SEAL).splitlines()
        if len(lines) != 2 or hashlib.sha256(lines[0]).hexdigest().encode() != lines[1]:
            raise Damaged(f"{folder / SEAL} is not what was written")
        head = json.loads(lines[0])
        if head["format"] != FORMAT:
            raise Damaged(f"{folder / SEAL} is of format {head['format']}, this version reads {FORMAT}")
        checksums = self._whole(CHECKSUMS)
        if hashlib.sha256(checksums).hexdigest() != head["checksums"]:
            raise Damaged(f"{folder / CHECKSUMS} is not what was written")
        self.sizes: dict[str, int] = head["files"]
        ends = np.cumsum([-(-size // BLOCK) for size in self.sizes.values()])
        parts = np.split(np.frombuffer(checksums, np.uint32), ends[:-1])
        self.checksums = dict(zip(self.sizes, parts, strict=True))  # of the blocks of each file

    def read(self, name: str) -> bytes:
        """All of a file."""
        content = self._whole(name)
        if _checksums(content) != self.checksums[name].tobytes():
            raise Damaged(f"{self.folder / name} is not what was written")
        return content

    def array(self, name: str, dtype: str) -> "Array":
        return Array(self, name, dtype)

    def open(self, name: str) -> BinaryIO:
        """A file that has the size it was written with."""
        place = self.folder / name
        try:  # neither through a link, nor waiting for the other end of a pipe
            file = os.fdopen(os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb", buffering=0)
        except OSError as error:
            if error.errno in DAMAGE:
                what = "is missing" if error.errno == errno.ENOENT else f"cannot be read: {error.strerror}"
                raise Damaged(f"{place} {what}") from error
            raise ValueError(f"{place} cannot be read: {error.strerror}") from error
        status, size = os.fstat(file.fileno()), self.sizes[name] if name not in (SEAL, CHECKSUMS) else None
        if not stat.S_ISREG(status.st_mode):
            what = "is no file"
        elif size not in (None, status.st_size):
            what = f"has {status.st_size:,} bytes instead of {size:,}"
        else:
            return file
        file.close()
        raise Damaged(f"{place} {what}")

    def _whole(self, name: str) -> bytes:
        with self.open(name) as file:
            try:
                return file.read()
            except OSError as error:
                raise Damaged(f"{self.folder / name} cannot be read: {error.strerror}") from error

    def give_up(self, what: str) -> Damaged:
        """What to raise for damage that is found when the data are in use: the next start will see it too."""
        try:
            (self.folder / SEAL).unlink(missing_ok=True)
        except OSError as error:
            return Damaged(f"cache_dir: {what}; {self.folder} cannot be made anew ({error.strerror}), name another")
        return Damaged(f"cache_dir: {what}; the next start makes it anew, and with resume=auto the run goes on")


class Array:
    """Numbers in a sealed file, read where they are looked at, and each block checked before it is first.

    Takes what numpy takes: a number, a slice, or an array of numbers (..., ), and gives what numpy gives.
    """

    def __init__(self, sealed: Sealed, name: str, dtype: str) -> None:
        self.sealed, self.name, self.dtype = sealed, name, np.dtype(dtype)
        self._checksums = sealed.checksums[name]
        self._unseen = np.ones(len(self._checksums), dtype=bool)
        self._left = len(self._checksums)  # blocks that are not checked yet
        self._per_block = BLOCK // self.dtype.itemsize
        self._file = sealed.open(name)
        self._numbers = _mapped(self._file, sealed.sizes[name], self.dtype)

    def __reduce__(self) -> tuple[Any, ...]:  # to a process that shares nothing with this one, which opens it itself
        return Array, (self.sealed, self.name, self.dtype.name)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, key: Any) -> Any:
        if self._left:
            self._check(self._blocks(key))
        return self._numbers[key]

    def _blocks(self, key: Any) -> np.ndarray:
        """Those that hold these numbers and are not checked yet."""
        if isinstance(key, slice):
            span = range(len(self))[key]
            if not span:
                return np.zeros(0, dtype=np.int64)
            first, last = (place // self._per_block for place in sorted((span[0], span[-1])))
            return first + np.flatnonzero(self._unseen[first : last + 1])
        at = np.asarray(key)
        if at.dtype.kind not in "iu":
            raise TypeError(f"indices are whole, not {at.dtype}")
        if at.size and at.min() < 0:
            at = np.where(at < 0, at + len(self), at)
        blocks = at // self._per_block
        return np.unique(blocks[self._unseen[blocks]])

    def _check(self, blocks: np.ndarray) -> None:
        for block in blocks.tolist():
            begin, place = block * BLOCK, self.sealed.folder / self.name
            try:  # not through the map: where a file was cut meanwhile, that would end the process
                content = os.pread(self._file.fileno(), BLOCK, begin)
            except OSError as error:
                raise self.sealed.give_up(f"{place} cannot be read: {error.strerror}") from error
            if zlib.crc32(content) != self._checksums[block]:
                what = f"is not what was written, somewhere in the {BLOCK:,} bytes from {begin:,} on"
                raise self.sealed.give_up(f"{place} {what}")
        self._unseen[blocks] = False
        self._left -= len(blocks)


def let_go() -> None:
    """What was looked at in large files counts as memory of this process until it lets go of it: in a long run, the
    whole corpus. It stays in the system's cache, which gives way when memory is short."""
    for content in _maps:
        content.madvise(mmap.MADV_DONTNEED)


def _mapped(file: BinaryIO, size: int, dtype: np.dtype) -> np.ndarray:
    if not size:  # nothing that could be mapped
        return np.zeros(0, dtype)
    content = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
    if size > SMALL:
        _maps.add(content)
    return np.frombuffer(content, dtype)


def _checksums(content: bytes) -> bytes:
    view = memoryview(content)
    sums = [zlib.crc32(view[begin : begin + BLOCK]) for begin in range(0, len(view), BLOCK)]
    return np.array(sums, dtype=np.uint32).tobytes()


def _checksums_of(file: Path) -> Iterator[bytes]:
    with file.open("rb") as opened:
        while content := opened.read(BLOCK * AT_ONCE):
            yield _checksums(content)
