"""The tokenizer of a published model: a tokenizer.json, or the word lists that older folders have instead."""

import importlib.util
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from transformer_lab.data.tokenizers import Tokenizer
from transformer_lab.interop.published import Published, read_json

TOKENIZER = "tokenizer.json"
PIECES, WORDS, MERGES = "vocab.txt", "vocab.json", "merges.txt"
BYTE_BPE = ("GPT2Tokenizer", "RobertaTokenizer", "BartTokenizer")  # whose words are parted by GPT-2's pattern
SOURCE, TARGET = "source.spm", "target.spm"  # models of SentencePiece, of the languages that are read and written
STRANGE = 1000.0  # by how much a letter of the other language is less likely than the least likely piece of its own
SPECIAL = ("</s>", "<unk>", "<pad>")  # of OPUS-MT
OTHER = "\ufdd0"  # begins a piece of the other language, where it is one of no text of this one
MOST_EMPTY = 10_000  # rows of an embedding that are of no token
# What special tokens are called in a tokenizer_config.json, by what they are to a task here; and where that file is
# silent, what most vocabularies write.
PARTS = {
    "<cls>": ("cls_token", ("[CLS]", "<s>")),
    "<sep>": ("sep_token", ("[SEP]", "</s>")),
    "<mask>": ("mask_token", ("[MASK]", "<mask>")),
    "<eos>": ("eos_token", ("<|endoftext|>", "</s>", "<|end_of_text|>")),
    "<unk>": ("unk_token", ("[UNK]", "<unk>")),
    "<pad>": ("pad_token", ("[PAD]", "<pad>")),
}


def tokenizer_of(model: Published) -> Tokenizer:
    """Its special tokens are found by what they are to a task. Raises ValueError where there is none that fits."""
    folder = model.folder
    said: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            said |= read_json(folder / name)
    named = {key: _content(said.get(key)) for key, _ in [*PARTS.values(), ("bos_token", ())]}
    found = _loaded(folder, said, named)
    parts = {}
    for part, (key, usual) in PARTS.items():
        names = (token,) if (token := named[key]) is not None else usual
        known = next((name for name in names if name in found.special_tokens), None)
        if known is not None:
            parts[part] = known
    start = model.values.get("decoder_start_token_id")
    begins = found.name(start) if isinstance(start, int) and start >= 0 else found.frame[0]
    if begins in found.special_tokens:
        parts["<bos>"] = begins
    found, rows = found.taking(parts), model.values.get("vocab_size", found.vocab_size)
    if type(rows) is not int or not found.vocab_size <= rows <= found.vocab_size + MOST_EMPTY:
        raise ValueError(f"{folder}: its tokenizer has {found.vocab_size:,} tokens, and its config.json {rows}")
    # An embedding may have more rows than there are tokens: a multiple of 64, say.
    filled = found.grown([f"<row-{row}>" for row in range(found.vocab_size, rows)])
    if filled.vocab_size != rows:
        raise ValueError(f"{folder}: the ids of its tokenizer leave some out")
    return filled


def framed(model: Published, tokenizer: Tokenizer) -> bool:
    """Whether the tokenizer.json puts around a text what a classifier here reads: the token that opens it, and the one
    that closes it."""
    if not (model.folder / TOKENIZER).is_file() or not (tokenizer.knows("<cls>") and tokenizer.knows("<sep>")):
        return False
    opens, closes = (tokenizer.name(tokenizer.special(part)) for part in ("<cls>", "<sep>"))
    return Tokenizer.load(model.folder / TOKENIZER).frame == [opens, None, closes]


def _content(token: Any) -> str | None:
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) else None


def _loaded(folder: Path, said: dict[str, Any], named: dict[str, str | None]) -> Tokenizer:
    if (folder / TOKENIZER).is_file():
        return Tokenizer.load(folder / TOKENIZER)
    try:
        if (folder / PIECES).is_file():
            inner = _word_piece(folder / PIECES, said, named["unk_token"] or "[UNK]")
        elif all((folder / name).is_file() for name in (WORDS, SOURCE, TARGET)):
            return _of_two_languages(folder)
        elif (folder / WORDS).is_file() and (folder / MERGES).is_file():
            inner = _byte_bpe(folder, said)
            added = said.get("added_tokens_decoder") or {}
            named = named | {number: _content(token) for number, token in added.items()}
        else:
            raise ValueError(f"{folder}: there is no {TOKENIZER}{_remedy(folder)}")
    except Exception as error:  # the library raises nothing more precise
        if str(error).startswith(str(folder)):
            raise
        raise ValueError(f"{folder}: its lists of tokens cannot be read: {' '.join(str(error).split())}") from error
    usual = [name for _, names in PARTS.values() for name in names]
    return _with_special(inner, [name for name in (*named.values(), *usual) if name])


def _with_special(inner: tokenizers.Tokenizer, names: Iterable[str]) -> Tokenizer:
    special = [name for name in dict.fromkeys(names) if inner.token_to_id(name) is not None]
    inner.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in special])
    return Tokenizer(inner)


def _word_piece(file: Path, said: dict[str, Any], unknown: str) -> tokenizers.Tokenizer:
    """BERT's: a token a line."""
    lines = file.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    pieces = {line.removesuffix("\r"): number for number, line in enumerate(lines)}
    inner = tokenizers.Tokenizer(models.WordPiece(pieces, unk_token=unknown))
    inner.normalizer = normalizers.BertNormalizer(
        handle_chinese_chars=bool(said.get("tokenize_chinese_chars", True)),
        strip_accents=said.get("strip_accents"),
        lowercase=bool(said.get("do_lower_case", True)),
    )
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece()
    return inner


def _byte_bpe(folder: Path, said: dict[str, Any]) -> tokenizers.Tokenizer:
    """GPT-2's: an object of tokens, and a merge a line, below one with a version."""
    if (kind := str(said.get("tokenizer_class") or BYTE_BPE[0]).removesuffix("Fast")) not in BYTE_BPE:
        raise ValueError(f"{folder}: the words of a {kind} are parted in a way that only a {TOKENIZER} would say")
    lines = (folder / MERGES).read_text(encoding="utf-8").splitlines()
    parted = [line.partition(" ") for line in lines if line and not line.startswith("#version")]
    merges = [(first, second) for first, _, second in parted]
    words = json.loads((folder / WORDS).read_text(encoding="utf-8"))
    inner = tokenizers.Tokenizer(models.BPE(words, merges))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=bool(said.get("add_prefix_space", False)))
    inner.decoder = decoders.ByteLevel()
    return inner


def _of_two_languages(folder: Path) -> Tokenizer:
    """OPUS-MT's: one list of tokens, and a model for each language, of which pieces of a text are the likeliest."""
    if importlib.util.find_spec("sentencepiece") is None:
        raise ValueError(f"{folder}: {SOURCE} takes pip install sentencepiece to be read")
    words = json.loads((folder / WORDS).read_text(encoding="utf-8"))
    names = sorted(words, key=words.__getitem__)
    if sorted(words.values()) != list(range(len(words))):
        raise ValueError(f"{folder / WORDS}: the ids leave some out")
    source, target = (_with_special(_unigram(folder / file, names), SPECIAL) for file in (SOURCE, TARGET))
    return target.carrying(source)


def _unigram(file: Path, names: list[str]) -> tokenizers.Tokenizer:
    """A model of SentencePiece (Kudo and Richardson, 2018, arXiv:1808.06226) over these tokens."""
    from sentencepiece import sentencepiece_model_pb2

    model: Any = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    model.ParseFromString(file.read_bytes())
    if model.trainer_spec.model_type != model.trainer_spec.UNIGRAM:
        raise ValueError(f"{file}: not a unigram model")
    scores = {piece.piece: piece.score for piece in model.pieces if piece.type == piece.NORMAL}
    strange = min(scores.values(), default=0.0) - STRANGE
    languages = [name for name in names if name[:2] + name[-2:] == ">><<"]
    own = {*scores, *SPECIAL, *languages, *(name for name in names if len(name) == 1)}
    pieces = [(name if name in own else OTHER + name, scores.get(name, strange)) for name in names]
    inner = tokenizers.Tokenizer(models.Unigram(pieces, names.index("<unk>"), False))
    spec = model.normalizer_spec
    steps: list[normalizers.Normalizer] = []
    if spec.precompiled_charsmap:
        steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
    if spec.remove_extra_whitespaces:
        steps += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    inner.normalizer = normalizers.Sequence(steps)
    first = "always" if spec.add_dummy_prefix else "never"
    spelt = Regex("<(?=/s>|unk>|pad>)")  # the beginning of what only looks like a special token
    apart = pre_tokenizers.Split(spelt, "isolated")
    inner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(prepend_scheme=first), apart])
    inner.decoder = decoders.Sequence([decoders.Replace(OTHER, ""), decoders.Metaspace(prepend_scheme=first)])
    # What says which language to write, ">>fra<<", is one token, wherever it stands.
    inner.add_tokens([AddedToken(name, normalized=False) for name in languages])
    return inner


def _remedy(folder: Path) -> str:
    """Where a folder has a model of SentencePiece, how it becomes one."""
    found = [*folder.glob("*.spm"), *folder.glob("*.model")]
    if not found:
        return ""
    return (
        f", and {found[0].name} is not read here; where transformers and sentencepiece are installed, this makes one: "
        f'python -c "from transformers import AutoTokenizer as T; '
        f"T.from_pretrained('{folder}').save_pretrained('{folder}')\""
    )
