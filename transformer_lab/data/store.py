"""A tokenized corpus on disk: one flat, memory-mapped array per split, with where each document begins.

A store lies in a folder named by a fingerprint of everything that makes its content: the source, the tokenizer and
the way they are joined. It is written beside and renamed, so a folder that is there is whole, also when two
processes build it at once.
"""

import hashlib
import json
import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from transformer_lab.data.examples import Document, Split
from transformer_lab.data.sources.base import Source
from transformer_lab.data.tokenizers import Tokenizer

log = logging.getLogger(__name__)
FORMAT = 1  # raise it when the files below change their meaning
CHARACTERS_AT_ONCE = 1_000_000  # text held in memory while tokenizing


@dataclass(frozen=True)
class Corpus:
    """One split: `tokens` of all documents laid end to end, each closed by its end token."""

    tokens: np.ndarray  # (tokens,), the smallest unsigned type that holds the vocabulary
    offsets: np.ndarray  # (documents + 1,) int64, where each document begins
    text_bytes: int  # of the text in UTF-8, end tokens not counted
    place: Path | None = None  # where its files lie, but for their suffix; what is derived from it may lie beside

    @property
    def num_documents(self) -> int:
        return len(self.offsets) - 1

    @property
    def bytes_per_token(self) -> float:
        """Bytes of text that a token stands for, end tokens counted as tokens."""
        return self.text_bytes / len(self.tokens)

    def head(self, num_tokens: int) -> "Corpus":
        """The first tokens as a corpus of their own; a document that does not end within them is cut."""
        length = min(num_tokens, len(self.tokens))
        ends = self.offsets[(self.offsets > 0) & (self.offsets < length)]
        offsets = np.concatenate([[0], ends, [length]]).astype(np.int64)
        return Corpus(self.tokens[:length], offsets, round(self.bytes_per_token * length))


@dataclass(frozen=True)
class Store:
    """The splits of a corpus, and `text_hash`: the SHA-256 of all their text in order."""

    splits: dict[Split, Corpus]
    text_hash: str

    @classmethod
    def open(cls, folder: Path) -> "Store":
        facts = json.loads((folder / "store.json").read_text(encoding="utf-8"))
        splits = {
            split: Corpus(
                np.memmap(folder / f"{split}.tokens", dtype=facts["dtype"], mode="r"),
                np.memmap(folder / f"{split}.offsets", dtype=np.int64, mode="r"),
                counts["text_bytes"],
                folder / split,
            )
            for split, counts in facts["splits"].items()
        }
        return cls(splits, facts["text_hash"])


def prepare(source: Source, tokenizer: Tokenizer, *, end: int, cache_dir: Path) -> Store:
    """The store of this source and tokenizer: opened where it lies, or built first. `end` closes each document."""
    facts = {"format": FORMAT, "source": source.signature(), "tokenizer": tokenizer.hash, "end": end}
    folder = cache_dir / f"store-{fingerprint(facts)}"
    if not folder.exists():
        log.info("Tokenizing: no store for %s", _difference(facts, cache_dir))
        build_beside(folder, lambda beside: _write(beside, source, tokenizer, end, facts))
    return Store.open(folder)


def fingerprint(facts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def build_beside(target: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a folder, then rename it to `target`; where another process was faster, its result stays."""
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        write(beside)
        try:
            beside.rename(target)
        except OSError:
            if not target.exists():
                raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _write(folder: Path, source: Source, tokenizer: Tokenizer, end: int, facts: dict[str, Any]) -> None:
    started, text_hash = time.monotonic(), hashlib.sha256()
    dtype = np.dtype(np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32)
    writers: dict[Split, _SplitWriter] = {}
    for batch in _batches(source.read()):
        encoded = tokenizer.encode_batch([document.text for _, document in batch])
        for (split, document), tokens in zip(batch, encoded, strict=True):
            data = document.text.encode()
            text_hash.update(f"{split} {document.more} {len(data)}\n".encode() + data)
            if split not in writers:
                writers[split] = _SplitWriter(folder, split, dtype)
            writers[split].add(tokens, None if document.more else end, len(data))
    for writer in writers.values():
        writer.close()
    counts = {split: {"text_bytes": writer.text_bytes} for split, writer in writers.items()}
    content = {"made_of": facts, "dtype": dtype.name, "text_hash": text_hash.hexdigest(), "splits": counts}
    (folder / "store.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    total = sum(writer.written for writer in writers.values())
    log.info("Tokenized %s tokens in %.1f s", f"{total:,}", time.monotonic() - started)


class _SplitWriter:
    """Appends to the files of one split; holds nothing but the document in hand."""

    def __init__(self, folder: Path, split: Split, dtype: np.dtype) -> None:
        self.dtype, self.written, self.text_bytes = dtype, 0, 0
        self.tokens: BinaryIO = open(folder / f"{split}.tokens", "wb")  # noqa: SIM115 - open for the whole pass
        self.offsets: BinaryIO = open(folder / f"{split}.offsets", "wb")  # noqa: SIM115
        self.offsets.write(np.int64(0).tobytes())

    def add(self, tokens: list[int], end: int | None, text_bytes: int) -> None:
        self.tokens.write(np.array(tokens, dtype=self.dtype).tobytes())
        self.written += len(tokens)
        self.text_bytes += text_bytes
        if end is not None:
            self.tokens.write(self.dtype.type(end).tobytes())
            self.written += 1
            self.offsets.write(np.int64(self.written).tobytes())

    def close(self) -> None:
        self.tokens.close()
        self.offsets.close()


def _batches(examples: Iterator[tuple[Split, Document]]) -> Iterator[list[tuple[Split, Document]]]:
    """Lists of documents of about a million characters, so that the tokenizer's threads have work."""
    batch: list[tuple[Split, Document]] = []
    size = 0
    for example in examples:
        batch.append(example)
        size += len(example[1].text)
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
