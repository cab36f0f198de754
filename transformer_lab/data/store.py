"""A tokenized corpus on disk: flat, memory-mapped arrays per split, with where each example begins.

A store lies in a folder named by a fingerprint of everything that makes its content: the source, the tokenizer and
the way examples become rows. It is written beside and renamed, so a folder that is there is whole, also when two
processes build it at once.
"""

import hashlib
import json
import logging
import mmap
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol
from weakref import WeakSet

import numpy as np

from transformer_lab.data.examples import Example, Split
from transformer_lab.data.overlap import Hashes, Overlap, overlaps
from transformer_lab.data.sources.base import Source
from transformer_lab.data.tokenizers import Tokenizer

log = logging.getLogger(__name__)
FORMAT = 2  # raise it when the files below change their meaning
CHARACTERS_AT_ONCE = 1_000_000  # text held in memory while tokenizing
SMALL = 1 << 24  # bytes of a file that may stay in memory
_maps: WeakSet[mmap.mmap] = WeakSet()  # of larger ones


class Encoding(Protocol):
    """How a task turns examples into rows of numbers; a plain object."""

    @property
    def columns(self) -> Mapping[str, type]:
        """Each column's kind of number; columns of `Token` hold tokens."""
        ...

    def signature(self) -> dict[str, Any]:
        """Facts, fit for JSON, that change when other rows would come out."""
        ...

    def texts(self, example: Any) -> Sequence[str]:
        """What of an example is tokenized."""
        ...

    def row(self, example: Any, encoded: list[list[int]]) -> dict[str, Sequence[int]]:
        """One list of numbers for each column, of an example and its texts' tokens."""
        ...


class Token(int):
    """A token's number: stored in the smallest unsigned type that holds the vocabulary."""


@dataclass(frozen=True)
class Ragged:
    """Rows of different length, end to end."""

    values: np.ndarray
    offsets: np.ndarray  # (rows + 1,) int64, where each begins

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)


@dataclass(frozen=True)
class Corpus:
    """One split: a row of each column for every example."""

    columns: dict[str, Ragged]
    tokens_in: tuple[str, ...]  # the columns that hold tokens
    text_bytes: int  # of the text in UTF-8, what the encoding added not counted
    place: Path | None = None  # where its files lie, but for their suffix; what is derived from it may lie beside

    def __getitem__(self, column: str) -> Ragged:
        return self.columns[column]

    @property
    def num_examples(self) -> int:
        return len(next(iter(self.columns.values())))

    @property
    def num_tokens(self) -> int:
        return sum(len(self.columns[name].values) for name in self.tokens_in)

    @property
    def bytes_per_token(self) -> float:
        """Bytes of text that a token stands for, those that the encoding added counted as tokens."""
        return self.text_bytes / self.num_tokens


@dataclass(frozen=True)
class Store:
    """The splits of a corpus, `text_hash`: the SHA-256 of all their text in order, and what splits share."""

    splits: dict[Split, Corpus]
    text_hash: str
    overlaps: list[Overlap]

    @classmethod
    def open(cls, folder: Path) -> "Store":
        facts = json.loads((folder / "store.json").read_text(encoding="utf-8"))
        splits = {}
        for split, counts in facts["splits"].items():
            columns = {
                name: Ragged(*(mapped(folder / f"{split}.{name}.{part}", kind) for part, kind in
                               (("values", dtype), ("offsets", "int64"))))
                for name, dtype in facts["columns"].items()
            }  # fmt: skip
            splits[split] = Corpus(columns, tuple(facts["tokens_in"]), counts["text_bytes"], folder / split)
        return cls(splits, facts["text_hash"], [Overlap(**found) for found in facts["overlaps"]])


def mapped(file: Path, dtype: str) -> np.ndarray:
    """An array on disk, read where it is looked at; an empty file cannot be mapped."""
    with file.open("rb") as opened:
        size = file.stat().st_size
        if not size:
            return np.zeros(0, dtype)
        content = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    if size > SMALL:
        _maps.add(content)
    return np.frombuffer(content, dtype)


def let_go() -> None:
    """What was looked at in large files counts as memory of this process until it lets go of it: in a long run, the
    whole corpus. It stays in the system's cache, which gives way when memory is short."""
    for content in _maps:
        content.madvise(mmap.MADV_DONTNEED)


def prepare(source: Source, tokenizer: Tokenizer, encoding: Encoding, *, cache_dir: Path) -> Store:
    """The store of this source and tokenizer: opened where it lies, or built first."""
    facts = {"format": FORMAT, "source": source.signature(), "tokenizer": tokenizer.hash,
             "encoding": encoding.signature()}  # fmt: skip
    folder = cache_dir / f"store-{fingerprint(facts)}"
    if not folder.exists():
        log.info("Tokenizing: no store for %s", _difference(facts, cache_dir))
        build_beside(folder, lambda beside: _write(beside, source, tokenizer, encoding, facts))
    return Store.open(folder)


def fingerprint(facts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def build_beside(target: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a folder, then rename it to `target`; where another process was faster, its result stays."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise ValueError(f"cache_dir: {target.parent} cannot be written: {error.strerror}") from error
    try:
        write(beside)
        try:
            beside.rename(target)
        except OSError:
            if not target.exists():
                raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _write(folder: Path, source: Source, tokenizer: Tokenizer, encoding: Encoding, facts: dict[str, Any]) -> None:
    started, text_hash = time.monotonic(), hashlib.sha256()
    token = np.dtype(np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32)
    dtypes = {name: token if kind is Token else np.dtype(kind) for name, kind in encoding.columns.items()}
    writers: dict[Split, _SplitWriter] = {}
    for batch in _batches(source.read()):
        texts = [encoding.texts(example) for _, example in batch]
        encoded = iter(tokenizer.encode_batch([text for some in texts for text in some]))
        for (split, example), some in zip(batch, texts, strict=True):
            data = "\0".join(example.texts).encode()
            text_hash.update(f"{split} {example.more} {len(data)}\n".encode() + data)
            if split not in writers:
                writers[split] = _SplitWriter(folder, split, dtypes)
            row = encoding.row(example, [next(encoded) for _ in some])
            writers[split].add(example, row, sum(len(text.encode()) for text in example.texts))
    for writer in writers.values():
        writer.close()
    tokens_in = [name for name, kind in encoding.columns.items() if kind is Token]
    content = {
        "made_of": facts,
        "columns": {name: dtype.name for name, dtype in dtypes.items()},
        "tokens_in": tokens_in,
        "text_hash": text_hash.hexdigest(),
        "splits": {split: {"text_bytes": writer.text_bytes} for split, writer in writers.items()},
        "overlaps": [vars(found) for found in overlaps(folder, list(writers))],
    }
    (folder / "store.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    total = sum(writer.written[name] for writer in writers.values() for name in tokens_in)
    log.info("Tokenized %s tokens in %.1f s", f"{total:,}", time.monotonic() - started)


class _SplitWriter:
    """Appends to the files of one split; holds nothing but the example in hand."""

    def __init__(self, folder: Path, split: Split, dtypes: dict[str, np.dtype]) -> None:
        self.dtypes, self.text_bytes = dtypes, 0
        self.written = dict.fromkeys(dtypes, 0)
        self.values = {name: self._open(folder / f"{split}.{name}.values") for name in dtypes}
        self.offsets = {name: self._open(folder / f"{split}.{name}.offsets") for name in dtypes}
        self.hashes = Hashes(folder, split)
        for file in self.offsets.values():
            file.write(np.int64(0).tobytes())

    def _open(self, file: Path) -> BinaryIO:
        return file.open("wb")

    def add(self, example: Example, row: dict[str, Sequence[int]], text_bytes: int) -> None:
        self.text_bytes += text_bytes
        self.hashes.add(example)
        for name, dtype in self.dtypes.items():
            self.values[name].write(np.asarray(row[name], dtype=dtype).tobytes())
            self.written[name] += len(row[name])
            if not example.more:
                self.offsets[name].write(np.int64(self.written[name]).tobytes())

    def close(self) -> None:
        for file in (*self.values.values(), *self.offsets.values()):
            file.close()
        self.hashes.close()


def _batches(examples: Iterator[tuple[Split, Any]]) -> Iterator[list[tuple[Split, Any]]]:
    """Lists of examples of about a million characters, so that the tokenizer's threads have work."""
    batch: list[tuple[Split, Any]] = []
    size = 0
    for split, example in examples:
        batch.append((split, example))
        size += sum(map(len, example.texts))
        if size >= CHARACTERS_AT_ONCE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _difference(facts: dict[str, Any], cache_dir: Path) -> str:
    """What sets these facts apart from the newest store there is: the reason for a rebuild, in words."""
    stores = sorted(cache_dir.glob("store-*/store.json"), key=lambda path: path.stat().st_mtime)
    if not stores:
        return f"these data yet in {cache_dir}"
    before = json.loads(stores[-1].read_text(encoding="utf-8"))["made_of"]
    changed = [name for name in facts if facts[name] != before.get(name)]
    return f"this {' and '.join(changed)} (the newest in {cache_dir} differs in that)"
