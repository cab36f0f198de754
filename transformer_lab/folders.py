"""Writing into a folder that somebody else may have made: nothing leads out of it, and a file is whole or not there."""

import errno
import os
import shutil
import stat
from pathlib import Path

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # why something cannot be written that could be before


def refuse_links(folder: Path, key: str) -> None:
    """Raises ValueError, named by the `key`, where something in a folder leads out of it or is no ordinary file.

    Nothing is opened: a pipe would wait for ever, and a device be written.
    """
    top = os.path.realpath(folder)
    for here, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(here, name)
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                if os.path.commonpath([top, os.path.realpath(path)]) != top:
                    raise ValueError(f"{key}: {path} is a link that leads out of the folder; delete the link")
            elif not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise ValueError(f"{key}: {path} is neither a file nor a folder; delete it")


def place_for(output: str) -> Path:
    """With what the names of results begin; its folder is made. Raises ValueError where nothing can lie there."""
    place = Path(output)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"output: {place.parent} cannot be a folder: {error.strerror}") from error
    if not os.access(place.parent, os.W_OK):
        raise ValueError(f"output: {place.parent} cannot be written")
    return place


def replace(file: Path, content: str | bytes) -> None:
    """Write a file beside and rename it: where a link was, or half of a file, this one is."""
    beside = file.with_name(f".{file.name}.partial")
    remove(beside)
    with beside.open("xb") as opened:
        opened.write(content.encode() if isinstance(content, str) else content)
    beside.replace(file)


def remove(path: Path) -> None:
    """A file, a link (not what it leads to) or a whole folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Returns once a file, or which names a folder holds, would survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
