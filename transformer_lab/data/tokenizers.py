"""Text to token ids and back: recipes that train a tokenizer, and the file of one that exists already.

All are built on the `tokenizers` library, so that a run's tokenizer is a plain tokenizer.json that others can read.
"""

import hashlib
import json
import logging
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers

from transformer_lab.data.sources.base import no_such_name, no_such_path

log = logging.getLogger(__name__)
UNKNOWN = "<unk>"  # of the tokenizers that do not know every text
# Every tokenizer trained here has these, so that what one task has taught a model another can go on with: the end of
# a text, the beginning of one that is judged as a whole, what stands between two, what stands for a hidden token.
SPECIALS = ("<eos>", "<cls>", "<sep>", "<mask>")
MAX_CHARACTERS = 50_000_000  # more text hardly changes a vocabulary, and costs memory and minutes
MAX_VOCABULARY = 10_000_000  # the library sets room aside for all of it at once
PROBE = f"Once upon a time, in 1905 … {'a' * 64} {'1' * 64} {' ' * 64}\n\n\tdéjà 東京 ↔ 🙂"  # any tokenizer reads it
RARE = 4  # single characters may take one part in RARE of a vocabulary; the rarest ones become unknown
# A word with the space before it, digits, signs, white space: GPT-2's pattern without the English contractions.
WORDS = Regex(r" ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")


class Tokenizer:
    """A `tokenizers.Tokenizer` whose special tokens are never made by text that happens to spell them."""

    def __init__(self, inner: tokenizers.Tokenizer) -> None:
        inner.no_padding()
        inner.no_truncation()
        inner.encode_special_tokens = True  # the library's name for: encode their text like any other
        self._inner = inner
        self._specials = {t.content: i for i, t in inner.get_added_tokens_decoder().items() if t.special}
        self.vocab_size = max(inner.get_vocab().values(), default=-1) + 1  # files of others may leave ids out

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        try:
            loaded = cls.from_json(Path(path).read_text(encoding="utf-8"))
        except Exception as error:  # the library raises nothing more precise
            raise ValueError(f"{path}: not a tokenizer.json: {' '.join(str(error).split())}") from error
        try:
            loaded.decode(loaded.encode(PROBE))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        return loaded

    @classmethod
    def from_json(cls, text: str) -> "Tokenizer":
        return cls(tokenizers.Tokenizer.from_str(text))

    def save(self, path: str | Path) -> None:
        Path(path).write_text(self.json, encoding="utf-8")

    @property
    def json(self) -> str:
        """What a tokenizer.json holds."""
        return self._inner.to_str(pretty=True)

    @property
    def hash(self) -> str:
        canonical = json.dumps(json.loads(self._inner.to_str()), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()

    @cached_property
    def unknown(self) -> int | None:
        """The token that stands for whatever the vocabulary lacks; None where it lacks nothing."""
        model = json.loads(self._inner.to_str())["model"]
        found: int | None = model.get("unk_id", self._inner.token_to_id(model.get("unk_token") or ""))
        return found

    def special(self, name: str) -> int:
        if name not in self._specials:
            raise no_such_name("tokenizer", name, self._specials, "no such special token in it")
        return self._specials[name]

    def encode(self, text: str) -> list[int]:
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        with _runs():
            return [encoding.ids for encoding in self._inner.encode_batch_fast(texts, add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        with _runs():
            return self._inner.decode(list(ids), skip_special_tokens=True)

    def reveal(self, ids: Sequence[int]) -> str:
        """Decoded with the special tokens in their places."""
        return self._inner.decode(list(ids), skip_special_tokens=False)

    @cached_property
    def ordinary(self) -> np.ndarray:
        """The tokens that stand for text: ascending."""
        every = self._inner.get_vocab().values()
        return np.array(sorted(set(every) - set(self._specials.values())), dtype=np.int64)

    @cached_property
    def continues(self) -> np.ndarray:
        """Which tokens go on with the word of the token before: (vocab_size,) bool."""
        found = np.zeros(self.vocab_size, dtype=bool)
        made = json.loads(self._inner.to_str())
        pieces = made["model"].get("type") == "WordPiece"
        stand_ins = (made["decoder"] or {}).get("type") == "ByteLevel"  # letters that stand for bytes
        for token, number in self._inner.get_vocab().items():
            text = self._inner.decode([number]) if stand_ins else token
            # Half a letter decodes to the sign for what is none.
            found[number] = token.startswith("##") if pieces else text[:1].isalnum() or text[:1] == "\ufffd"
        return found

    def __reduce__(self) -> tuple:  # to a worker process; the library would forget encode_special_tokens
        return Tokenizer.from_json, (self._inner.to_str(),)


@contextmanager
def _runs() -> Iterator[None]:
    """Raises ValueError for what stops the library in the middle: a pattern, of a file of others, that takes too long.

    It raises no `Exception` then, but what its language, Rust, has for a bug.
    """
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise ValueError(f"the tokenizer cannot be run: {' '.join(str(error).split())}") from error


class Recipe(ABC):
    """How a tokenizer is made. The same texts in the same order make the same tokenizer, in any process."""

    @abstractmethod
    def train(self, texts: Iterable[str], *, specials: Sequence[str]) -> Tokenizer:
        """`specials` are what is needed of special tokens; together with `SPECIALS` they take the first ids."""

    def signature(self) -> dict[str, Any]:
        """Facts, fit for JSON, that change when other texts aside another tokenizer would come out."""
        return {"kind": type(self).__name__, "library": tokenizers.__version__, **vars(self)}


class ByteBPE(Recipe):
    """Byte pair encoding of UTF-8 (Sennrich et al., 2016; Radford et al., 2019): every text has an encoding."""

    def __init__(self, *, vocab_size: int, max_characters: int = MAX_CHARACTERS) -> None:
        self.vocab_size, self.max_characters = vocab_size, max_characters

    def train(self, texts: Iterable[str], *, specials: Sequence[str]) -> Tokenizer:
        specials = _all(specials)
        _check(specials, self.vocab_size, 256, "256 bytes")
        inner = tokenizers.Tokenizer(models.BPE())
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocab_size,
            special_tokens=list(specials),
            initial_alphabet=_byte_alphabet(),
            show_progress=False,
        )
        inner.train_from_iterator(_front(texts, self.max_characters), trainer)
        return Tokenizer(inner)


class WordPiece(Recipe):
    """Pieces of words, those inside a word marked ## (Schuster and Nakajima, 2012; BERT); decoding is not exact."""

    def __init__(self, *, vocab_size: int, lowercase: bool = True, max_characters: int = MAX_CHARACTERS) -> None:
        self.vocab_size, self.lowercase, self.max_characters = vocab_size, lowercase, max_characters

    def train(self, texts: Iterable[str], *, specials: Sequence[str]) -> Tokenizer:
        specials = _all(specials, UNKNOWN)
        _check(specials, self.vocab_size, RARE, "characters and pieces")
        texts = _common(_front(texts, self.max_characters), self.vocab_size // RARE)
        # The library numbers the characters in the order of a hash table with a random seed. A first round, without
        # merges, finds which there are; the second is given them in a fixed order.
        characters = self._fit(texts, specials, 0).get_vocab().keys() - set(specials)
        vocabulary = self._fit(texts, [*specials, *sorted(characters)], self.vocab_size).get_vocab()
        inner = self._untrained(vocabulary)
        inner.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in specials])
        return Tokenizer(inner)

    def _fit(self, texts: list[str], first: list[str], vocab_size: int) -> tokenizers.Tokenizer:
        inner = self._untrained({})
        trainer = trainers.WordPieceTrainer(vocab_size=vocab_size, special_tokens=first, show_progress=False)
        inner.train_from_iterator(texts, trainer)
        return inner

    def _untrained(self, vocabulary: dict[str, int]) -> tokenizers.Tokenizer:
        inner = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token=UNKNOWN))
        inner.normalizer = normalizers.BertNormalizer(lowercase=self.lowercase)
        inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        inner.decoder = decoders.WordPiece()
        return inner


class Unigram(Recipe):
    """The pieces under which the text is most likely (Kudo, 2018, arXiv:1804.10959)."""

    def __init__(self, *, vocab_size: int, max_characters: int = MAX_CHARACTERS) -> None:
        self.vocab_size, self.max_characters = vocab_size, max_characters

    def train(self, texts: Iterable[str], *, specials: Sequence[str]) -> Tokenizer:
        specials = _all(specials, UNKNOWN)
        _check(specials, self.vocab_size, RARE, "characters and pieces")
        trained = self._with(models.Unigram())
        trainer = trainers.UnigramTrainer(
            vocab_size=self.vocab_size, special_tokens=specials, unk_token=UNKNOWN, show_progress=False
        )
        texts = _common(_front(texts, self.max_characters), self.vocab_size // RARE)
        trained.train_from_iterator(texts, trainer)
        # Sums in a random order leave noise of 1e-11 in the scores: rounded away, and the order made anew.
        scores = [(piece, round(score, 3)) for piece, score in json.loads(trained.to_str())["model"]["vocab"]]
        pieces = sorted(scores[len(specials) :], key=lambda item: (-item[1], item[0]))
        vocabulary = scores[: len(specials)] + pieces
        inner = self._with(models.Unigram(vocabulary, specials.index(UNKNOWN), False))
        inner.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in specials])
        return Tokenizer(inner)

    def _with(self, model: models.Unigram) -> tokenizers.Tokenizer:
        inner = tokenizers.Tokenizer(model)
        spaces = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
        inner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(WORDS, "isolated"), spaces])
        inner.decoder = decoders.Metaspace(prepend_scheme="never")
        return inner


class Characters(Recipe):
    """One token per character of the training text; any other is unknown."""

    def __init__(self, *, max_characters: int = MAX_CHARACTERS) -> None:
        self.max_characters = max_characters

    def train(self, texts: Iterable[str], *, specials: Sequence[str]) -> Tokenizer:
        specials = _all(specials, UNKNOWN)
        _check(specials)
        characters = sorted(set().union(*_front(texts, self.max_characters)))
        inner = _without_merges([*specials, *characters], specials, UNKNOWN)
        inner.decoder = decoders.Fuse()
        return Tokenizer(inner)


class Bytes(Recipe):
    """One token per byte of UTF-8, in the order of the bytes."""

    def train(self, texts: Iterable[str], *, specials: Sequence[str]) -> Tokenizer:
        specials = _all(specials)
        _check(specials)
        inner = _without_merges([*specials, *_byte_alphabet()], specials, None)
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        inner.decoder = decoders.ByteLevel()
        return Tokenizer(inner)


class File(Recipe):
    """A tokenizer.json that exists already; the texts are not looked at."""

    def __init__(self, *, path: str) -> None:
        self.path = path

    @property
    def file(self) -> Path:
        file = Path(self.path).expanduser()
        if not file.is_file():
            raise no_such_path("tokenizer.path", self.path)
        return file

    def signature(self) -> dict[str, Any]:
        return {"kind": "File", "sha256": hashlib.sha256(self.file.read_bytes()).hexdigest()}

    def train(self, texts: Iterable[str], *, specials: Sequence[str]) -> Tokenizer:
        tokenizer = Tokenizer.load(self.file)
        for name in specials:
            if name not in tokenizer._specials:
                there = ", ".join(list(tokenizer._specials)[:20]) or "none"
                raise ValueError(
                    f"tokenizer.path={self.path}: no special token {name}, which the task needs; it has: {there}"
                )
        return tokenizer


def _all(specials: Sequence[str], *more: str) -> list[str]:
    return list(dict.fromkeys([*SPECIALS, *specials, *more]))


def _check(specials: Sequence[str], vocab_size: int | None = None, least: int = 0, what: str = "") -> None:
    for name in specials:  # pre-tokenizers part letters from signs, so no piece of ordinary text can equal it
        assert re.fullmatch(r"<[a-z]+>", name), f"a special token is written like <eos>, not {name}"
    if vocab_size is not None and vocab_size > MAX_VOCABULARY:
        raise ValueError(f"tokenizer.vocab_size={vocab_size}: at most {MAX_VOCABULARY:,}")
    if vocab_size is not None and vocab_size < least + len(specials):
        raise ValueError(
            f"tokenizer.vocab_size={vocab_size}: at least {least + len(specials)}, "
            f"for {what} and {len(specials)} special tokens"
        )


def _front(texts: Iterable[str], most: int) -> Iterator[str]:
    """The first `most` characters."""
    left = most
    for text in texts:
        if not left:
            log.info("Training the tokenizer on the first %s characters (tokenizer.max_characters)", f"{most:,}")
            return
        yield text[:left]
        left -= len(text[:left])


def _common(texts: Iterable[str], most: int) -> list[str]:
    """The texts with all but their `most` most frequent characters replaced by a space."""
    texts, counts = list(texts), Counter[str]()
    for text in texts:
        counts.update(text)
    kept = set(sorted(counts, key=lambda character: (-counts[character], character))[:most])
    return [text if kept.issuperset(text) else "".join(c if c in kept else " " for c in text) for text in texts]


def _byte_alphabet() -> list[str]:
    """The printable stand-ins of byte-level models: byte b is written as the b-th (Radford et al., 2019)."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def _without_merges(tokens: list[str], specials: Sequence[str], unknown: str | None) -> tokenizers.Tokenizer:
    """Byte pair encoding that never merges is one token per character, five times as fast as splitting the text."""
    vocabulary = {token: place for place, token in enumerate(tokens)}
    inner = tokenizers.Tokenizer(models.BPE(vocabulary, [], unk_token=unknown))
    inner.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in specials])
    return inner
