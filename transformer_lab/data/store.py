"""A tokenized corpus on disk: flat, memory-mapped arrays per split, with where each example begins.

A store is a folder of the cache, named by a fingerprint of everything that makes its content: the source, the
tokenizer and the way examples become rows.
"""

import hashlib
import json
import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from transformer_lab.data.cache import fingerprint, obtain
from transformer_lab.data.examples import Example, Split
from transformer_lab.data.overlap import Hashes, Overlap, overlaps
from transformer_lab.data.sealed import Array, Sealed
from transformer_lab.data.sources.base import Source
from transformer_lab.data.tokenizers import Tokenizer

log = logging.getLogger(__name__)
FORMAT = 4  # raise it when the files below change their meaning
PARTS = ("values", "offsets")  # the files of a column
CHARACTERS_AT_ONCE = 1_000_000  # text held in memory while tokenizing
MOST_LOST = 0.01  # share of tokens or texts; more is said
DECODED = 10_000  # texts of the training split that are decoded again; of the other splits, all


class Encoding(Protocol):
    """How a task turns examples into rows of numbers; a plain object."""

    @property
    def columns(self) -> Mapping[str, type]:
        """Each column's kind of number; columns of `Token` hold tokens."""
        ...

    def cache_key(self) -> dict[str, Any]:
        """Facts, fit for JSON, that change when other rows would come out."""
        ...

    def texts(self, example: Any) -> Sequence[str]:
        """What of an example is tokenized."""
        ...

    def row(self, example: Any, encoded: list[list[int]]) -> Mapping[str, Sequence[float]]:
        """One list of numbers for each column, of an example and its texts' tokens."""
        ...

    @property
    def written(self) -> int | None:
        """Which of `texts` a model is to write, so that it matters whether its tokens make it again; None: none."""
        ...


class Token(int):
    """A token's number: stored in the smallest unsigned type that holds the vocabulary."""


@dataclass(frozen=True)
class Ragged:
    """Rows of different length, end to end."""

    values: np.ndarray | Array
    offsets: np.ndarray | Array  # (rows + 1,) int64, where each begins

    @classmethod
    def of(cls, rows: Sequence[Sequence[float]], kind: type = np.int64) -> "Ragged":
        values: np.ndarray = np.array([number for row in rows for number in row], dtype=kind)
        return cls(values, np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        begin, end = self.offsets[row : row + 2]
        return self.values[begin:end]

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets[:])


@dataclass(frozen=True)
class Corpus:
    """One split: a row of each column for every example."""

    columns: dict[str, Ragged]
    tokens_in: tuple[str, ...]  # the columns that hold tokens
    text_bytes: int  # of the text in UTF-8, what the encoding added not counted
    place: Path | None = None  # where its files lie, but for their suffix; what is derived from it may lie beside
    unknown_share: float = 0.0  # of the tokens, those that stand for what the tokenizer does not know
    kept_share: float = 1.0  # of the texts to be written that were looked at, those that decoding gives back
    text_hash: str = ""  # of its text in order; splits of the same one are the same texts

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
    def read(cls, sealed: Sealed) -> "Store":
        written = json.loads(sealed.read("store.json"))
        splits = {}
        for split, counts in written["splits"].items():
            columns = {}
            for name, dtype in written["columns"].items():
                values, offsets = (f"{split}.{name}.{part}" for part in PARTS)
                columns[name] = Ragged(sealed.array(values, dtype), sealed.array(offsets, "int64"))
            splits[split] = Corpus(
                columns,
                tuple(written["tokens_in"]),
                counts["text_bytes"],
                place=sealed.folder / split,
                unknown_share=counts["unknown"] / max(1, counts["tokens"]),
                kept_share=counts["kept"] / counts["decoded"] if counts["decoded"] else 1.0,
                text_hash=counts.get("text_hash", f"{written['text_hash']} {split}"),  # of earlier stores
            )
        return cls(splits, written["text_hash"], [Overlap(**found) for found in written["overlaps"]])


def corpus_of(examples: Sequence[Any], tokenizer: Tokenizer, encoding: Encoding) -> Corpus:
    """A few examples as a corpus in memory, each a row of the columns that a store of them would have."""
    encoded = _encoded([encoding.texts(one) for one in examples], tokenizer, encoding.written)
    rows = [encoding.row(one, tokens) for one, tokens in zip(examples, encoded, strict=True)]
    columns = {}
    for name, kind in encoding.columns.items():
        columns[name] = Ragged.of([row[name] for row in rows], np.int64 if kind is Token else kind)
    tokens_in = tuple(name for name, kind in encoding.columns.items() if kind is Token)
    return Corpus(columns, tokens_in, sum(len(text.encode()) for one in examples for text in one.texts))


def _encoded(texts: Sequence[Sequence[str]], tokenizer: Tokenizer, written: int | None) -> Iterator[list[list[int]]]:
    """The tokens of each example's texts; those before the one that is written may have a tokenizer of their own."""
    read = [text for some in texts for text in some[: written or 0]]
    others = [text for some in texts for text in some[written or 0 :]]
    first, second = iter(tokenizer.reading.encode_batch(read)), iter(tokenizer.encode_batch(others))
    for some in texts:
        yield [next(first if place < (written or 0) else second) for place in range(len(some))]


def prepare(source: Source, tokenizer: Tokenizer, encoding: Encoding, *, cache_dir: Path) -> Store:
    """The store of this source and tokenizer: opened where it lies, or built first."""
    made_of = {
        "format": FORMAT,
        "source": source.cache_key(),
        "tokenizer": tokenizer.hash,
        "encoding": encoding.cache_key(),
    }

    def write(folder: Path) -> None:
        log.info("Tokenizing: no store for %s", _difference(made_of, cache_dir))
        _write(folder, source, tokenizer, encoding, made_of)

    return obtain(cache_dir / f"store-{fingerprint(made_of)}", write=write, read=Store.read)


def prepared(text_hash: str, tokenizer: Tokenizer, encoding: Encoding, *, cache_dir: Path) -> Store | None:
    """The store of this text, wherever it was read from, if there is one; nothing but the cache is looked at."""
    made = {"tokenizer": tokenizer.hash, "encoding": json.loads(json.dumps(encoding.cache_key()))}
    for folder in sorted(cache_dir.glob("store-*")):
        with suppress(ValueError, LookupError, OSError):  # damaged, or of another version: not this one
            sealed = Sealed(folder)
            written = json.loads(sealed.read("store.json"))
            if written["text_hash"] == text_hash and made.items() <= written["made_of"].items():
                return Store.read(sealed)
    return None


def _write(folder: Path, source: Source, tokenizer: Tokenizer, encoding: Encoding, made_of: dict[str, Any]) -> None:
    started, text_hash = time.monotonic(), hashlib.sha256()
    token = np.dtype(np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32)
    dtypes = {name: token if kind is Token else np.dtype(kind) for name, kind in encoding.columns.items()}
    writers: dict[Split, _SplitWriter] = {}
    with ExitStack() as files:
        for batch in _batches(source.read()):
            texts = [encoding.texts(example) for _, example in batch]
            encoded = _encoded(texts, tokenizer, encoding.written)
            for (split, example), some, tokens in zip(batch, texts, encoded, strict=True):
                data = "\0".join(example.texts).encode()
                data = f"{split} {example.more} {len(data)}\n".encode() + data
                text_hash.update(data)
                if split not in writers:
                    writers[split] = _SplitWriter(folder, split, dtypes, files)
                writers[split].add(example, data, encoding.row(example, tokens))
                writers[split].look(some, tokens, tokenizer, encoding.written)
    tokens_in = [name for name, kind in encoding.columns.items() if kind is Token]
    content = {
        "made_of": made_of,
        "columns": {name: dtype.name for name, dtype in dtypes.items()},
        "tokens_in": tokens_in,
        "text_hash": text_hash.hexdigest(),
        "splits": {
            split: {**writer.counts, "text_hash": writer.text_hash.hexdigest()} for split, writer in writers.items()
        },
        "overlaps": [vars(found) for found in overlaps(folder, list(writers))],
    }
    (folder / "store.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    total = sum(writer.written[name] for writer in writers.values() for name in tokens_in)
    log.info("Tokenized %s tokens in %.1f s", f"{total:,}", time.monotonic() - started)


class _SplitWriter:
    """Appends to the files of one split; holds nothing but the example in hand."""

    def __init__(self, folder: Path, split: Split, dtypes: dict[str, np.dtype], files: ExitStack) -> None:
        self.dtypes, self.split = dtypes, split
        self.counts = Counter(text_bytes=0, tokens=0, unknown=0, decoded=0, kept=0)
        self.text_hash = hashlib.sha256()
        self.written = dict.fromkeys(dtypes, 0)
        self.values, self.offsets = (
            {name: files.enter_context((folder / f"{split}.{name}.{part}").open("wb")) for name in dtypes}
            for part in PARTS
        )
        self.hashes = files.enter_context(closing(Hashes(folder, split)))
        for file in self.offsets.values():
            file.write(np.int64(0).tobytes())

    def add(self, example: Example, data: bytes, row: Mapping[str, Sequence[float]]) -> None:
        """`data` is what the example's text is hashed as."""
        self.text_hash.update(data)
        self.counts["text_bytes"] += sum(len(text.encode()) for text in example.texts)
        self.hashes.add(example)
        for name, dtype in self.dtypes.items():
            self.values[name].write(np.asarray(row[name], dtype=dtype).tobytes())
            self.written[name] += len(row[name])
            if not example.more:
                self.offsets[name].write(np.int64(self.written[name]).tobytes())

    def look(self, texts: Sequence[str], tokens: list[list[int]], tokenizer: Tokenizer, written: int | None) -> None:
        """Count what of the texts is lost in their tokens."""
        self.counts["tokens"] += sum(map(len, tokens))
        if tokenizer.unknown is not None:
            self.counts["unknown"] += sum(ids.count(tokenizer.unknown) for ids in tokens)
        if written is not None and (self.split != "train" or self.counts["decoded"] < DECODED):
            self.counts["decoded"] += 1
            self.counts["kept"] += tokenizer.decode(tokens[written]) == texts[written]


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


def _difference(made_of: dict[str, Any], cache_dir: Path) -> str:
    """What sets it apart from the newest store there is: the reason for a rebuild, in words."""
    for file in sorted(cache_dir.glob("store-*/store.json"), key=_since, reverse=True):
        with suppress(Exception):  # damaged, of another version, not for us to read: no reason to fail
            before = json.loads(file.read_bytes())["made_of"] if file.is_file() else made_of
            if changed := [name for name in made_of if made_of[name] != before.get(name)]:
                return f"this {' and '.join(changed)} (the newest in {cache_dir} differs in that)"
    return f"these data yet in {cache_dir}"


def _since(file: Path) -> float:
    with suppress(OSError):
        return file.stat().st_mtime
    return 0.0
