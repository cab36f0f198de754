"""Text to token ids and back: recipes that train a tokenizer, and the file of one that exists already.

All are built on the `tokenizers` library, so that a run's tokenizer is a plain tokenizer.json that others can read.
"""

import hashlib
import json
import logging
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import regex
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers

from transformer_lab.data.sources.base import no_such_name, no_such_path

V = TypeVar("V", bound=Collection[Any])  # a vocabulary

log = logging.getLogger(__name__)
CARRIED = "<reading>"  # in the table of a post-processor: another tokenizer
UNKNOWN = "<unk>"  # of the tokenizers that do not know every text
# Every tokenizer trained here has these, so that what one task has taught a model another can go on with: the end of
# a text, the beginning of one that is judged as a whole, what stands between two, what stands for a hidden token.
SPECIAL_TOKENS = ("<eos>", "<cls>", "<sep>", "<mask>")
MAX_CHARACTERS = 50_000_000  # more text hardly changes a vocabulary, and costs memory and minutes
MAX_VOCABULARY = 10_000_000  # the library sets room aside for all of it at once
PROBE = f"Once upon a time, in 1905 … {'a' * 64} {'1' * 64} {' ' * 64}\n\n\tdéjà 東京 ↔ 🙂"  # any tokenizer reads it
RARE = 4  # where merges need the room, single characters take one part in RARE of a vocabulary; others are unknown
# A word with the space before it, digits, signs, white space: GPT-2's pattern, in which a word ends at each mark. Here
# marks (vowel signs, accents in code points of their own) and what joins letters without being seen belong to the word.
WORDS = r" ?\p{L}[\p{L}\p{M}\u200c\u200d]*| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CONTRACTIONS = r"'s|'t|'re|'ve|'m|'ll|'d"  # of English: GPT-2's pattern begins with them
# Written without spaces: what is between two spaces is a clause there, and a piece is more of a word.
UNSPACED = regex.compile(r"(?!\p{M})[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}ーｰ]")
INSIDE = regex.compile(r"[\p{L}\p{M}\p{N}\u200c\u200d\ufffd]")  # a word; the last is the sign for what is no letter
ALONE = r"[#\p{Han}]"  # by themselves in WordPiece; ## in a text would be taken for its mark
LONGEST = 1000  # characters of a word; what WordPiece does with it grows with their square


class Tokenizer:
    """A `tokenizers.Tokenizer` whose special tokens are never made by text that happens to spell them."""

    def __init__(self, inner: tokenizers.Tokenizer) -> None:
        inner.no_padding()
        inner.no_truncation()
        inner.encode_special_tokens = True  # the library's name for: encode their text like any other
        self._inner = inner
        self.special_tokens = {t.content: i for i, t in inner.get_added_tokens_decoder().items() if t.special}
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
        """The token of this name, or the one that takes its part."""
        if not self.knows(name):
            raise no_such_name("tokenizer", name, self._parts | self.special_tokens, "no such special token in it")
        return (self._parts | self.special_tokens)[name]

    def knows(self, name: str) -> bool:
        """Whether it has a special token of this name, or one that takes its part."""
        return name in self._parts or name in self.special_tokens

    @property
    def frame(self) -> list[str | None]:
        """The special tokens that others put around a text, by the template in the file, with None for the text."""
        steps = [step["single"] for step in self._template.get("processors", [self._template]) if step.get("single")]
        return [part.get("SpecialToken", {}).get("id") for part in steps[0]] if steps else [None]

    def name(self, token: int) -> str:
        """How a token is written in the vocabulary."""
        return str(self._inner.id_to_token(token))

    @cached_property
    def _template(self) -> dict[str, Any]:
        """What the file has for a post-processor; to write out all of it would take its vocabulary along."""
        step = self._inner.post_processor
        return dict(json.loads(step.__getstate__())) if step else {}

    @cached_property
    def _parts(self) -> dict[str, int]:
        table = self._template.get("special_tokens", {})
        return {name: one["ids"][0] for name, one in table.items() if name != CARRIED}

    def _copy(self) -> tokenizers.Tokenizer:
        return tokenizers.Tokenizer.from_str(self._inner.to_str())

    def with_template(self, template: processors.TemplateProcessing) -> str:
        """A tokenizer.json for others, which puts around a text what a template says."""
        inner = self._copy()
        inner.post_processor = template
        return inner.to_str(pretty=True)

    def grown(self, names: Sequence[str]) -> "Tokenizer":
        """The same with further special tokens, at the end of the vocabulary."""
        if not names:
            return self
        inner = self._copy()
        inner.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
        return Tokenizer(inner)

    def taking(self, parts: Mapping[str, str]) -> "Tokenizer":
        """The same, in which special tokens of its own take the parts of those that tasks ask for: {"<cls>": "[CLS]"}.

        A tokenizer.json has a place for such names: the table of its post-processor, which nothing else here reads.
        """
        return self._with(parts, self.reading)

    def carrying(self, other: "Tokenizer") -> "Tokenizer":
        """The same with another one for what is read to be translated; what is written has this one. Both have the same
        tokens, which the texts of two languages are parted into in different ways (OPUS-MT)."""
        return self._with({name: self.name(token) for name, token in self._parts.items()}, other)

    @cached_property
    def reading(self) -> "Tokenizer":
        """What parts a text that is read to be translated: the other one that this one carries, or itself."""
        carried = self._template.get("special_tokens", {}).get(CARRIED)
        return self if carried is None else Tokenizer.from_json(carried["tokens"][0])

    def _with(self, parts: Mapping[str, str], other: "Tokenizer") -> "Tokenizer":
        inner = self._copy()
        table: list[Any] = [(name, self.special_tokens[token]) for name, token in parts.items()]
        if other is not self:
            table.append({"id": CARRIED, "ids": [0], "tokens": [other._inner.to_str()]})
        inner.post_processor = processors.TemplateProcessing(single="$A", pair="$A $B:1", special_tokens=table)
        return Tokenizer(inner)

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
        return np.array(sorted(set(every) - set(self.special_tokens.values())), dtype=np.int64)

    @cached_property
    def continues(self) -> np.ndarray:
        """Which tokens go on with the word of the token before: (vocab_size,) bool."""
        found = np.zeros(self.vocab_size, dtype=bool)
        made = json.loads(self._inner.to_str())
        pieces = made["model"].get("type") == "WordPiece"
        stand_ins = (made["decoder"] or {}).get("type") == "ByteLevel"  # letters that stand for bytes
        for token, number in self._inner.get_vocab().items():
            first = _first_letter(token) if stand_ins else token.removeprefix("##")[:1]
            inside = token.startswith("##") if pieces else bool(INSIDE.match(first))
            found[number] = inside and not UNSPACED.match(first)
        return found

    def __reduce__(self) -> tuple[Any, ...]:  # to a worker process; the library would forget encode_special_tokens
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


class TokenizerTrainer(ABC):
    """How a tokenizer is made. The same texts in the same order make the same tokenizer, in any process."""

    words = ""  # the pattern that parts a text into what no token reaches over

    @abstractmethod
    def train(self, texts: Iterable[str], *, special_tokens: Sequence[str]) -> Tokenizer:
        """`special_tokens`, together with `SPECIAL_TOKENS`, take the first ids."""

    def cache_key(self) -> dict[str, Any]:
        """Facts, fit for JSON, that change when other texts aside another tokenizer would come out."""
        return {"kind": type(self).__name__, "library": tokenizers.__version__, "words": self.words, **vars(self)}


class ByteBPE(TokenizerTrainer):
    """Byte pair encoding of UTF-8 (Sennrich et al., 2016; Radford et al., 2019): every text has an encoding."""

    words = f"{CONTRACTIONS}|{WORDS}"

    def __init__(self, *, vocab_size: int, max_characters: int = MAX_CHARACTERS) -> None:
        self.vocab_size, self.max_characters = vocab_size, max_characters

    def train(self, texts: Iterable[str], *, special_tokens: Sequence[str]) -> Tokenizer:
        special_tokens = _all(special_tokens)
        _check(special_tokens, self.vocab_size, 256, "256 bytes")
        inner = tokenizers.Tokenizer(models.BPE())
        to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        inner.pre_tokenizer = pre_tokenizers.Sequence([_split(self.words), to_bytes])
        inner.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocab_size,
            special_tokens=list(special_tokens),
            initial_alphabet=_byte_alphabet(),
            show_progress=False,
        )
        inner.train_from_iterator(_front(texts, self.max_characters), trainer)
        return Tokenizer(inner)


class WordPiece(TokenizerTrainer):
    """Pieces of words, those inside a word marked ## (Schuster and Nakajima, 2012; BERT), each Chinese sign by itself.

    A word holds the space before it, so that decoding is exact; but with `lowercase` letters are small, composed (NFC)
    and any white space is one space, and `strip_accents` takes the marks off Latin and Greek letters (é is e). Marks of
    other scripts are vowels, or make another letter (ガ, й), and stay.
    """

    words = WORDS

    def __init__(
        self,
        *,
        vocab_size: int,
        lowercase: bool = True,
        strip_accents: bool = False,
        max_characters: int = MAX_CHARACTERS,
    ) -> None:
        self.vocab_size, self.lowercase, self.strip_accents = vocab_size, lowercase, strip_accents
        self.max_characters = max_characters

    def train(self, texts: Iterable[str], *, special_tokens: Sequence[str]) -> Tokenizer:
        special_tokens = _all(special_tokens, UNKNOWN)
        _check(special_tokens, self.vocab_size, RARE, "characters and pieces")
        normal = self._normalizer()
        texts = [normal.normalize_str(text) for text in _front(texts, self.max_characters)]
        vocabulary = _fit_common(texts, self.vocab_size, lambda kept: self._fit(texts, special_tokens, kept), _forms)
        inner = self._untrained(vocabulary, {piece.replace("▁", " ") for piece in vocabulary if len(piece) == 1})
        inner.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in special_tokens])
        return Tokenizer(inner)

    def _fit(self, texts: list[str], special_tokens: list[str], kept: list[str]) -> dict[str, int]:
        # The library numbers the characters in the order of a hash table with a random seed: it is given them in a
        # fixed order, each also as it is inside a word, so that no word of known letters is unknown.
        forms = [form for letter in sorted(kept) for form in _forms(letter)]
        inner = self._untrained({})
        trainer = trainers.WordPieceTrainer(
            vocab_size=self.vocab_size, special_tokens=[*special_tokens, *forms], show_progress=False
        )
        inner.train_from_iterator(_without_others(texts, kept), trainer)
        return inner.get_vocab()

    def _untrained(self, vocabulary: dict[str, int], letters: Collection[str] = ()) -> tokenizers.Tokenizer:
        """An unknown one of the `letters` is parted from the rest of its word, which would be unknown with it."""
        model = models.WordPiece(vocabulary, unk_token=UNKNOWN, max_input_chars_per_word=LONGEST)
        inner = tokenizers.Tokenizer(model)
        inner.normalizer = self._normalizer()
        alone = [_split(ALONE), *([_split(_all_but(letters))] if letters else [])]
        inner.pre_tokenizer = _with_spaces(*alone, _split(self.words), _split(rf"[\s\S]{{{LONGEST}}}"))
        inside = decoders.Replace(Regex("^##"), "")
        inner.decoder = decoders.Sequence([inside, decoders.Metaspace(prepend_scheme="never")])
        return inner

    def _normalizer(self) -> normalizers.Normalizer:
        steps: list[normalizers.Normalizer] = []
        if self.strip_accents:
            steps += [normalizers.NFD(), normalizers.Replace(Regex(r"(?<=[\p{Latin}\p{Greek}])\p{Mn}+"), "")]
        if self.lowercase:
            # Turkish İ would become two characters. The last sigma of a Greek word is another letter than the others.
            steps += [normalizers.Lowercase(), normalizers.Replace("i\u0307", "i"), normalizers.NFC()]
            steps += [normalizers.Replace(Regex(r"(?<=\p{L})σ(?![\p{L}\p{M}])"), "ς")]
            steps += [normalizers.Replace(Regex(r"\s+"), " ")]
        return normalizers.Sequence([*steps, normalizers.NFC()] if steps else [])


class Unigram(TokenizerTrainer):
    """The pieces under which the text is most likely (Kudo, 2018, arXiv:1804.10959)."""

    words = WORDS

    def __init__(self, *, vocab_size: int, max_characters: int = MAX_CHARACTERS) -> None:
        self.vocab_size, self.max_characters = vocab_size, max_characters

    def train(self, texts: Iterable[str], *, special_tokens: Sequence[str]) -> Tokenizer:
        special_tokens = _all(special_tokens, UNKNOWN)
        _check(special_tokens, self.vocab_size, RARE, "characters and pieces")
        texts = [*_front(texts, self.max_characters)]
        scores = _fit_common(texts, self.vocab_size, lambda kept: self._fit(texts, special_tokens, kept), list)
        # Sums in a random order leave noise of 1e-11 in the scores: rounded away, and the order made anew.
        scores = [(piece, round(score, 3)) for piece, score in scores]
        pieces = sorted(scores[len(special_tokens) :], key=lambda item: (-item[1], item[0]))
        vocabulary = scores[: len(special_tokens)] + pieces
        inner = self._with(models.Unigram(vocabulary, special_tokens.index(UNKNOWN), False))
        inner.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in special_tokens])
        return Tokenizer(inner)

    def _fit(self, texts: list[str], special_tokens: list[str], kept: list[str]) -> list[tuple[str, float]]:
        trained = self._with(models.Unigram())
        trainer = trainers.UnigramTrainer(
            vocab_size=self.vocab_size, special_tokens=special_tokens, unk_token=UNKNOWN, show_progress=False
        )
        trained.train_from_iterator(_without_others(texts, kept), trainer)
        return json.loads(trained.to_str())["model"]["vocab"]

    def _with(self, model: models.Unigram) -> tokenizers.Tokenizer:
        inner = tokenizers.Tokenizer(model)
        inner.pre_tokenizer = _with_spaces(_split(self.words))
        inner.decoder = decoders.Metaspace(prepend_scheme="never")
        return inner


class Characters(TokenizerTrainer):
    """One token per character of the training text; any other is unknown."""

    def __init__(self, *, max_characters: int = MAX_CHARACTERS) -> None:
        self.max_characters = max_characters

    def train(self, texts: Iterable[str], *, special_tokens: Sequence[str]) -> Tokenizer:
        special_tokens = _all(special_tokens, UNKNOWN)
        _check(special_tokens)
        characters = sorted(set().union(*_front(texts, self.max_characters)))
        inner = _without_merges([*special_tokens, *characters], special_tokens, UNKNOWN)
        inner.decoder = decoders.Fuse()
        return Tokenizer(inner)


class Bytes(TokenizerTrainer):
    """One token per byte of UTF-8, in the order of the bytes."""

    def train(self, texts: Iterable[str], *, special_tokens: Sequence[str]) -> Tokenizer:
        special_tokens = _all(special_tokens)
        _check(special_tokens)
        inner = _without_merges([*special_tokens, *_byte_alphabet()], special_tokens, None)
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        inner.decoder = decoders.ByteLevel()
        return Tokenizer(inner)


class File(TokenizerTrainer):
    """A tokenizer.json that exists already; the texts are not looked at."""

    def __init__(self, *, path: str) -> None:
        self.path = path

    @property
    def file(self) -> Path:
        file = Path(self.path).expanduser()
        if not file.is_file():
            raise no_such_path("tokenizer.path", self.path)
        return file

    def cache_key(self) -> dict[str, Any]:
        return {"kind": "File", "sha256": hashlib.sha256(self.file.read_bytes()).hexdigest()}

    def train(self, texts: Iterable[str], *, special_tokens: Sequence[str]) -> Tokenizer:
        tokenizer = Tokenizer.load(self.file)
        for name in special_tokens:
            if name not in tokenizer.special_tokens:
                there = ", ".join(list(tokenizer.special_tokens)[:20]) or "none"
                raise ValueError(
                    f"tokenizer.path={self.path}: no special token {name}, which the task needs; it has: {there}"
                )
        return tokenizer


def _all(special_tokens: Sequence[str], *more: str) -> list[str]:
    return list(dict.fromkeys([*SPECIAL_TOKENS, *special_tokens, *more]))


def _check(special_tokens: Sequence[str], vocab_size: int | None = None, least: int = 0, what: str = "") -> None:
    for name in special_tokens:  # pre-tokenizers part letters from signs, so no piece of ordinary text can equal it
        assert re.fullmatch(r"<[a-z]+>", name), f"a special token is written like <eos>, not {name}"
    if vocab_size is not None and vocab_size > MAX_VOCABULARY:
        raise ValueError(f"tokenizer.vocab_size={vocab_size}: at most {MAX_VOCABULARY:,}")
    if vocab_size is not None and vocab_size < least + len(special_tokens):
        raise ValueError(
            f"tokenizer.vocab_size={vocab_size}: at least {least + len(special_tokens)}, "
            f"for {what} and {len(special_tokens)} special tokens"
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


def _split(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Split(Regex(pattern), "isolated")


def _all_but(letters: Iterable[str]) -> str:
    """The pattern of any one character but these."""
    return "[^" + "".join(rf"\x{{{ord(letter):x}}}" for letter in sorted(letters)) + "]"


def _with_spaces(*steps: pre_tokenizers.PreTokenizer) -> pre_tokenizers.PreTokenizer:
    """Splits, and writes ▁ for a space, so that it can be part of a piece."""
    return pre_tokenizers.Sequence([*steps, pre_tokenizers.Metaspace(prepend_scheme="never", split=False)])


def _forms(letter: str) -> list[str]:
    """How a character is written in a vocabulary of WordPiece: at the beginning of a word, and inside one."""
    letter = letter.replace(" ", "▁")
    return [letter] if regex.fullmatch(ALONE, letter) else [letter, f"##{letter}"]


def _fit_common(
    texts: list[str], vocab_size: int, fit: Callable[[list[str]], V], forms: Callable[[str], list[str]]
) -> V:
    """What `fit` makes of the most frequent characters: of one in RARE places, and of those that then stay empty."""
    counts = Counter[str]()
    for text in texts:
        counts.update(text)
    ranked = sorted(counts, key=lambda character: (-counts[character], character))
    kept = ranked[: vocab_size // RARE]
    fitted = fit(kept)
    empty = vocab_size - len(fitted)
    if empty > 0 and len(kept) < len(ranked):
        for letter in ranked[len(kept) :]:
            empty -= len(forms(letter))
            if empty < 0:
                break
            kept.append(letter)
        fitted = fit(kept)
    return fitted


def _without_others(texts: list[str], kept: list[str]) -> Iterator[str]:
    """With a space for every other character."""
    known = set(kept)
    for text in texts:
        yield text if known.issuperset(text) else "".join(c if c in known else " " for c in text)


def _first_letter(token: str) -> str:
    """Of bytes written in stand-ins; of a letter that is not whole, one that it may be.

    Where the end of another letter comes first, that is a mark, as it goes on with what was; but not where a piece is a
    word: there it would tie a whole clause together.
    """
    whole = bytes(_bytes().get(stand_in, 0) for stand_in in token[:7])
    head = whole.lstrip(bytes(range(0x80, 0xC0)))
    size = 1 + sum(head[:1] >= lead for lead in (b"\xc0", b"\xe0", b"\xf0"))
    letter = (head[:size] + b"\xa0" * 3)[:size].decode(errors="replace")[:1] if head else ""
    return letter if head == whole or UNSPACED.match(letter) else "\u0301"


def _byte_alphabet() -> list[str]:
    """The printable stand-ins of byte-level models: byte b is written as the b-th (Radford et al., 2019)."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


@cache
def _bytes() -> dict[str, int]:
    return {stand_in: byte for byte, stand_in in enumerate(_byte_alphabet())}


def _without_merges(tokens: list[str], special_tokens: Sequence[str], unknown: str | None) -> tokenizers.Tokenizer:
    """Byte pair encoding that never merges is one token per character, five times as fast as splitting the text."""
    vocabulary = {token: place for place, token in enumerate(tokens)}
    inner = tokenizers.Tokenizer(models.BPE(vocabulary, [], unk_token=unknown))
    inner.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in special_tokens])
    return inner
