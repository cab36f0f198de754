"""The cache: folders of prepared data, each named by a fingerprint of all that makes its content.

A folder is written beside, sealed, flushed to the disk and renamed, so one that is there is whole, also when two
processes build it at once; and it is checked when it is read (see `sealed`), and made anew where it is damaged.
"""

import errno
import fcntl
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO, TypeVar

from transformer_lab.data.sealed import FORMAT, Damaged, Sealed, seal
from transformer_lab.folders import FULL, flush

T = TypeVar("T")
log = logging.getLogger(__name__)
LOCK = ".lock"  # in a folder that is being built: held for as long, and free again when its process is dead
GONE = ".gone"  # how the name of a folder ends that is being deleted
LEFT = re.compile(r"\.[\w.]+-[0-9a-f]{16}\..+")  # how folders beside are called
DAY = 24 * 60 * 60  # seconds; older than that, what nobody has locked is left over
TRIES = 3  # a disk on which new data are damaged as well is given up


def fingerprint(made_of: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps([FORMAT, made_of], sort_keys=True).encode()).hexdigest()[:16]


def obtain(folder: Path, *, write: Callable[[Path], None], read: Callable[[Sealed], T]) -> T:
    """What `read` makes of a folder of the cache; where it is not there or is damaged, `write` fills another one.

    `write` is given an empty folder, which then takes its place, if nobody else's was faster. Raises ValueError, in
    one line: before `write` is called where the cache cannot be written, and where there is no room for it.
    """
    wrong, damaged = f"{folder} is missing", None
    for _ in range(TRIES):
        try:
            if (there := _inode(folder)) is not None:
                return read(Sealed(folder))
        except Damaged as error:
            wrong, damaged = str(error), there
            log.warning("%s: made anew", error)
        try:
            _build(folder, write, damaged)
        except ValueError as error:
            if damaged is None:
                raise
            raise ValueError(f"cache_dir: {wrong}, and cannot be made anew: {error}") from error
    raise ValueError(f"cache_dir: {wrong}, also after it was made anew: does the disk hold what is written?")


def _inode(folder: Path) -> int | None:
    """Which one it is of all that had this name; None where there is none. A link is none: it may lead anywhere."""
    try:
        status = folder.lstat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ValueError(f"cache_dir: {folder} cannot be read: {error.strerror}") from error
    return None if stat.S_ISLNK(status.st_mode) else status.st_ino


def _build(folder: Path, write: Callable[[Path], None], damaged: int | None) -> None:
    with _beside(folder) as beside:
        write(beside)
        seal(beside)
        if folder.is_symlink():
            folder.unlink()
        elif damaged is not None and _inode(folder) == damaged:
            _delete(folder)
        try:
            beside.rename(folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
            return  # another process was faster
        (folder / LOCK).unlink(missing_ok=True)
        flush(folder.parent)


@contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """An empty folder beside this one, locked; in the end it is deleted, unless it was renamed."""
    parent, beside = folder.parent, _name_beside(folder)
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _delete_left_over(parent)
        beside.mkdir()  # as the umask says: others may read it
        lock = _lock(beside)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise ValueError(f"cache_dir: {parent} cannot be written: {error.strerror}") from error
    with lock:
        try:
            yield beside
        except OSError as error:
            if error.errno in FULL:
                raise ValueError(_no_room(folder, beside, error)) from error
            if error.errno in (errno.EROFS, errno.EIO) or str(error.filename).startswith(str(parent)):
                raise ValueError(f"cache_dir: {folder} cannot be written: {error.strerror}") from error
            raise
        finally:
            shutil.rmtree(beside, ignore_errors=True)


def _no_room(folder: Path, beside: Path, error: OSError) -> str:
    written = sum(path.stat().st_size for path in beside.iterdir())
    shutil.rmtree(beside, ignore_errors=True)
    free = shutil.disk_usage(folder.parent).free
    needs = f"{folder.name} needs more than {written:,} bytes, {free:,} bytes are free"
    return f"cache_dir: {folder.parent}: {error.strerror}; {needs}"


def _name_beside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.{os.getpid()}-{secrets.token_hex(4)}")


def _lock(folder: Path) -> TextIO:
    """Taken before the lock can be seen by its name."""
    unseen = folder / f"{LOCK}.new"
    file = unseen.open("w", encoding="utf-8")
    with suppress(OSError):  # a file system without locks
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    file.write(socket.gethostname())
    file.flush()
    unseen.rename(folder / LOCK)
    return file


def _delete(folder: Path) -> None:
    """All at once, as far as anybody can tell who looks for it."""
    gone = folder.with_name(_name_beside(folder).name + GONE)
    with suppress(FileNotFoundError):  # another process did
        folder.rename(gone)
        shutil.rmtree(gone) if gone.is_dir() else gone.unlink()


def _delete_left_over(parent: Path) -> None:
    """What killed processes have left of what they built or deleted."""
    for path in parent.iterdir():
        if LEFT.fullmatch(path.name) and path.is_dir() and not path.is_symlink() and _is_left_over(path):
            log.info("Deleting %s, which a process that was ended has left", path)
            shutil.rmtree(path, ignore_errors=True)


def _is_left_over(folder: Path) -> bool:
    """Whether nobody works at it: its lock can be taken on the machine that made it, or it is old and has none."""
    if folder.name.endswith(GONE):
        return True
    with suppress(OSError):
        if not (folder / LOCK).exists():
            return time.time() - folder.stat().st_mtime > DAY
        with (folder / LOCK).open("r+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file.read() == socket.gethostname()
    return False
