"""The tokenizer of a published model: a tokenizer.json, or the word lists that older folders have instead."""

import json
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers

from transformer_lab.data.tokenizers import Tokenizer
from transformer_lab.interop.published import Published, read_json

TOKENIZER = "tokenizer.json"
PIECES, WORDS, MERGES = "vocab.txt", "vocab.json", "merges.txt"
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
    begins = found.name(start) if isinstance(start, int) and start >= 0 else found.opens_with
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


def _content(token: Any) -> str | None:
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) else None


def _loaded(folder: Path, said: dict[str, Any], named: dict[str, str | None]) -> Tokenizer:
    if (folder / TOKENIZER).is_file():
        return Tokenizer.load(folder / TOKENIZER)
    try:
        if (folder / PIECES).is_file():
            inner = _word_piece(folder / PIECES, said, named["unk_token"] or "[UNK]")
        elif (folder / WORDS).is_file() and (folder / MERGES).is_file():
            inner = _byte_bpe(folder, said)
        else:
            raise ValueError(f"{folder}: there is no {TOKENIZER}{_remedy(folder)}")
    except Exception as error:  # the library raises nothing more precise
        if str(error).startswith(str(folder)):
            raise
        raise ValueError(f"{folder}: its lists of tokens cannot be read: {' '.join(str(error).split())}") from error
    usual = [name for _, names in PARTS.values() for name in names]
    names = [name for name in dict.fromkeys([*named.values(), *usual]) if name]
    special = [name for name in names if inner.token_to_id(name) is not None]
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
    lines = (folder / MERGES).read_text(encoding="utf-8").splitlines()
    parted = [line.partition(" ") for line in lines if line and not line.startswith("#version")]
    merges = [(first, second) for first, _, second in parted]
    words = json.loads((folder / WORDS).read_text(encoding="utf-8"))
    inner = tokenizers.Tokenizer(models.BPE(words, merges))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=bool(said.get("add_prefix_space", False)))
    inner.decoder = decoders.ByteLevel()
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
