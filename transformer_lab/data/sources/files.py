"""Sources that read files of the user's own: which files make which split."""

import glob
import hashlib
import logging
import os
import re
import stat
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, Unpack

from transformer_lab.data.examples import Example, Split
from transformer_lab.data.sources.base import no_such_path
from transformer_lab.data.sources.separated import Cells, Quoting
from transformer_lab.data.sources.splits import SplitOptions, SplitSource
from transformer_lab.data.sources.streams import Unreadable, suffix, unzipped
from transformer_lab.data.sources.tables import READERS, Columns, rows

Unit = tuple[Path, ...]  # files that are read side by side: one, or a text and its translation
# How the files of a folder are called that has one called train.
NAMES: dict[Split, re.Pattern[str]] = {
    "train": re.compile("train"),
    "validation": re.compile("validation|valid|val|dev"),
    "test": re.compile(r"test([_.\-\d].*)?"),
}
TABLES = ", ".join(sorted(READERS))
NAMED = 5  # files that cannot be read, of however many there are
SAMPLED = 4096  # bytes, of the beginning, the middle and the end of a file
SHARD = re.compile(r"-\d+-of-\d+$")  # train-00000-of-00002 is a part of train
log = logging.getLogger(__name__)


class FileOptions(SplitOptions, total=False):
    """What any source takes that reads files."""

    validation_path: str | None
    test_path: str | None
    delimiter: str | None
    quoting: Quoting | None
    unreadable: Literal["error", "skip"]


class Files(SplitSource):
    """`path` is a file, a folder or a glob. A folder with files called train and, say, dev brings its own splits.

    `delimiter` and `quoting` say how CSV and TSV are written, where that is not to be found out (see `Cells`).
    `unreadable` says what a file does that is no text, or is damaged: "error" ends the run, "skip" leaves it out.
    """

    def __init__(
        self,
        *,
        columns: Columns,
        path: str,
        validation_path: str | None = None,
        test_path: str | None = None,
        delimiter: str | None = None,
        quoting: Quoting | None = None,
        unreadable: Literal["error", "skip"] = "error",
        **options: Unpack[SplitOptions],
    ) -> None:
        super().__init__(**options)
        self.columns, self.cells, self.unreadable = columns, Cells(delimiter, quoting), unreadable
        self._readable: dict[Split, list[Unit]] = {}
        self.units: dict[Split, list[Unit]] = {"train": self.find("data.path", path)}
        self._origins: dict[Split, str] = {"train": f"data.path={path}"}
        other: tuple[tuple[Split, str | None], ...] = (("validation", validation_path), ("test", test_path))
        for split, its_path in other:
            if its_path:
                self.units[split] = self.find(f"data.{split}_path", its_path)
                self._origins[split] = f"data.{split}_path={its_path}"
        if Path(path).expanduser().is_dir():
            self._split_by_name(Path(path).expanduser())
        self._keep_apart()

    @abstractmethod
    def find(self, option: str, path: str) -> list[Unit]:
        """What there is to read at a path, in order; a ValueError if that is nothing."""

    def stem(self, unit: Unit) -> str:
        """The part of its name that may tell the split."""
        return SHARD.sub("", unzipped(unit[0]).stem).lower()

    def examples_of(self, unit: Unit) -> Iterator[Example]:
        return self.columns(rows(unit[0], list(self.columns.names().values()), self.cells), unit[0])

    def splits(self) -> Collection[Split]:
        return self.units

    def origin(self, split: Split) -> str:
        return self._origins[split]

    def examples(self, split: Split) -> Iterator[Example]:
        if self.unreadable == "skip" and split not in self._readable:  # a look at all of them first, once
            self._readable[split] = self._without_unreadable(split)
        for unit in self._readable.get(split, self.units[split]):
            try:
                yield from self.examples_of(unit)
            except Unreadable as error:
                if len(self.units[split]) == 1:
                    raise
                raise self._refusal(split, [self._fault(unit) for unit in self.units[split]]) from error

    def _without_unreadable(self, split: Split) -> list[Unit]:
        faults = {unit: self._fault(unit) for unit in self.units[split]}
        if any(faults.values()):
            log.warning("%s: skipped, for %s", self.origin(split), _named(list(faults.values())))
        return [unit for unit, fault in faults.items() if not fault]

    def _refusal(self, split: Split, faults: list[str | None]) -> Unreadable:
        hint = "; data.unreadable=skip leaves them out" if len(faults) > 1 else ""
        return Unreadable(f"{self.origin(split)}: {_named(faults)}{hint}")

    def _fault(self, unit: Unit) -> str | None:
        """Why it cannot be read; other mistakes in it are not looked for."""
        try:
            deque(self.examples_of(unit), maxlen=0)
        except Unreadable as error:
            return str(error)
        except ValueError:
            pass
        return None

    def cache_key(self) -> dict[str, Any]:
        files = {split: self._states(split) for split in self.units}
        read = {**asdict(self.cells), "unreadable": self.unreadable}
        return {
            "source": type(self).__name__.lower(),
            "files": files,
            **read,
            **asdict(self.columns),
            **super().cache_key(),
        }

    def _states(self, split: Split) -> list[list[Any]]:
        files = [file for unit in self.units[split] for file in unit]
        faults = [None if os.access(file, os.R_OK) else f"{file}: no permission to read it" for file in files]
        if any(faults) and self.unreadable == "error":
            raise self._refusal(split, faults)
        return [[str(file)] if fault else _state(file) for file, fault in zip(files, faults, strict=True)]

    def _split_by_name(self, folder: Path) -> None:
        there = [unit for unit in self.units["train"] if unit[0].parent == folder]
        found = {split: [u for u in there if name.fullmatch(self.stem(u))] for split, name in NAMES.items()}
        if not found["train"]:
            return
        for split, units in found.items():
            if split != "train" and split in self.units:  # its path is given
                continue
            names = sorted({SHARD.sub("", unzipped(unit[0]).stem) + unzipped(unit[0]).suffix for unit in units})
            if len(names) > 1:
                option = "data.path" if split == "train" else f"data.{split}_path"
                raise ValueError(f"data.path={folder}: {' and '.join(names)} are each a {split} split; set {option}")
            if units:
                self.units[split] = units
                self._origins.setdefault(split, f"data.path={folder}, its {split} split")

    def _keep_apart(self) -> None:
        """What another split reads is not trained on."""
        others = {unit[0].resolve() for split, units in self.units.items() if split != "train" for unit in units}
        self.units["train"] = [unit for unit in self.units["train"] if unit[0].resolve() not in others]
        if not self.units["train"]:
            raise ValueError(f"{self._origins['train']}: nothing to train on but what validation or test read")


def _named(faults: list[str | None]) -> str:
    """How many of some files cannot be read, and why a few of them cannot."""
    found = list(filter(None, faults))
    more = f"; and {len(found) - NAMED:,} more" if len(found) > NAMED else ""
    return f"{len(found):,} of {len(faults):,} files cannot be read: {'; '.join(found[:NAMED])}{more}"


def _state(file: Path) -> list[Any]:
    """What is another when a file's content may be: which file it is, its size and times, and a hash of a sample.

    The times tell whether it was written to, which file it is whether another one took its place, also one of equal
    size and time. The sample is for file systems that keep no time of the last change. (Not the number of the device:
    it may be another one after a restart, or on the next machine.)
    """
    try:
        status, sample = file.stat(), hashlib.blake2b(digest_size=8)
        if stat.S_ISREG(status.st_mode):  # what comes through a pipe comes once
            with file.open("rb", buffering=0) as opened:
                for begin in (0, max(0, (status.st_size - SAMPLED) // 2), max(0, status.st_size - SAMPLED)):
                    sample.update(os.pread(opened.fileno(), SAMPLED, begin))
    except OSError as error:
        raise ValueError(f"{file}: cannot be read: {error.strerror}") from error
    times = [status.st_mtime_ns, status.st_ctime_ns]
    return [os.path.realpath(file), status.st_ino, status.st_size, *times, sample.hexdigest()]


def listed(option: str, path: str, wanted: Callable[[Path], bool], ends: str) -> list[Path]:
    """The wanted files of a folder, or whatever a glob or a name stands for, sorted; `ends` says what is wanted."""
    place = Path(path).expanduser()
    if place.is_dir():
        files = (file for file in place.rglob("*") if not _hidden(file.relative_to(place)))
        found = [file for file in files if wanted(file) and file.is_file()]
        reason = f"no file in it ends with {ends}"
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


def is_table(file: Path) -> bool:
    return suffix(file) in READERS


def tables(option: str, path: str, files: list[Path]) -> list[Unit]:
    if other := next((file for file in files if not is_table(file)), None):
        raise ValueError(f"{option}={path}: {other.name} is no table; its name has to end with {TABLES}")
    return [(file,) for file in files]


def _hidden(file: Path) -> bool:
    return any(part.startswith(".") for part in file.parts)
