"""Text survives its tokens, special tokens stay special, and training is repeatable."""

import copy
import json
import os
import random
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import tokenizers as library
from hypothesis import given
from hypothesis import strategies as st

from transformer_lab.data.masking import Masking
from transformer_lab.data.tokenizers import SPECIAL_TOKENS as COMMON
from transformer_lab.data.tokenizers import (
    ByteBPE,
    Bytes,
    Characters,
    File,
    Tokenizer,
    TokenizerTrainer,
    Unigram,
    WordPiece,
)

SPECIAL_TOKENS = ("<eos>", "<pad>")
EVERY_SPECIAL = (*COMMON, "<pad>")
TRAINERS = {
    "byte_bpe": ByteBPE(vocab_size=400),
    "wordpiece": WordPiece(vocab_size=400),
    "unigram": Unigram(vocab_size=400),
    "characters": Characters(),
    "bytes": Bytes(),
}
EVERY = pytest.mark.parametrize("name", TRAINERS)


def corpus() -> list[str]:
    """Sentences of invented words, with signs, line ends, accents and marks of other scripts."""
    chance = random.Random(0)
    letters = "etaoinshrdlucmfwypvbgkjqxz" + "éüßжあ漢"
    words = ["".join(chance.choices(letters, k=chance.randint(1, 8))) for _ in range(500)]
    return [
        " ".join(chance.choices(words, k=20)).capitalize() + f".\n\n\t{i}: <eos>, <unk>  [MASK]" for i in range(200)
    ]


@cache
def trained(name: str) -> Tokenizer:
    return TRAINERS[name].train(corpus(), special_tokens=SPECIAL_TOKENS)


@given(st.text())
@pytest.mark.parametrize("name", ["byte_bpe", "bytes"])
def test_any_text_survives_byte_level_tokens(name: str, text: str) -> None:
    assert trained(name).decode(trained(name).encode(text)) == text


ENGLISH_AND_GERMAN = [
    "I don't know whether it's 5 o'clock; we'll see, they've said. I'd go, you're right: I'm late!  DON'T.",
    "Übermäßig große Bäume, z. B. Straßenbäume, kosten 3,50 €: »ach so«, sagt' er … ❤️ 1️⃣ 👩‍👩‍👧 ™",
]


def test_english_and_german_have_the_ids_of_gpt2s_pattern() -> None:
    """The library's own pattern is that."""
    texts = [*corpus(), *ENGLISH_AND_GERMAN * 50, *(text.upper() for text in ENGLISH_AND_GERMAN)]
    ours = ByteBPE(vocab_size=600).train(texts, special_tokens=SPECIAL_TOKENS)
    theirs = library.Tokenizer(library.models.BPE())
    theirs.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = library.pre_tokenizers.ByteLevel.alphabet()
    trainer = library.trainers.BpeTrainer(
        vocab_size=600, special_tokens=[*EVERY_SPECIAL], initial_alphabet=alphabet, show_progress=False
    )
    theirs.train_from_iterator(texts, trainer)

    def pieces(tokenizer: library.Tokenizer) -> list[list[str]]:
        return [[tokenizer.id_to_token(i) for i in encoding.ids] for encoding in tokenizer.encode_batch(texts)]

    assert pieces(library.Tokenizer.from_str(ours.json)) == pieces(theirs)


@pytest.mark.parametrize("name", ["byte_bpe", "wordpiece"])
@pytest.mark.parametrize(
    "text", ["नमस्ते दुनिया", "তুমি কেমন", "தமிழ் மொழி", "می‌خواهم بروم", "שָׁלוֹם לְךָ", "cafe\u0301 nai\u0308ve"]
)
def test_no_token_ends_where_a_mark_begins(name: str, text: str) -> None:
    """A word that is all there is to learn becomes one token."""
    trainer = (
        WordPiece(vocab_size=500, lowercase=False) if name == "wordpiece" else type(TRAINERS[name])(vocab_size=500)
    )
    tokenizer = trainer.train([text] * 500, special_tokens=())
    assert len(tokenizer.encode(text)) == 2


@pytest.mark.parametrize("name", ["byte_bpe", "bytes", "characters", "unigram"])
def test_the_training_text_survives_its_tokens(name: str) -> None:
    tokenizer, texts = trained(name), corpus()
    assert [tokenizer.decode(ids) for ids in tokenizer.encode_batch(texts)] == texts


@given(st.text())
def test_bytes_and_characters_are_what_they_say(text: str) -> None:
    assert trained("bytes").encode(text) == [byte + len(EVERY_SPECIAL) for byte in text.encode()]
    assert len(trained("characters").encode(text)) == len(text)


@EVERY
def test_special_tokens_come_first_and_text_never_makes_them(name: str) -> None:
    tokenizer = trained(name)
    assert [tokenizer.special(special) for special in EVERY_SPECIAL] == list(range(5))
    ids = tokenizer.encode("a <eos> b<pad><mask><eos><cls>")
    assert not set(range(5)) & set(ids) and set(ids) <= set(tokenizer.ordinary.tolist()) | {5}  # 5 may be <unk>
    assert tokenizer.decode([0, *ids, 4]) == tokenizer.decode(ids)
    assert tokenizer.reveal([0, 3]).replace(" ", "") == "<eos><mask>"
    with pytest.raises(ValueError, match=r"<eof>.*<eos>"):
        tokenizer.special("<eof>")


@EVERY
def test_ids_fill_the_vocabulary(name: str) -> None:
    tokenizer = trained(name)
    used = {token for ids in tokenizer.encode_batch([*corpus(), "\N{SNOWMAN}"]) for token in ids}
    assert max(used) < tokenizer.vocab_size <= 400


@pytest.mark.parametrize("name", ["wordpiece", "unigram", "characters"])
def test_what_was_never_seen_is_unknown(name: str) -> None:
    tokenizer = trained(name)
    assert tokenizer.special("<unk>") in tokenizer.encode("\N{SNOWMAN}")
    assert tokenizer.special("<unk>") not in tokenizer.encode(corpus()[0])


def test_training_twice_gives_the_same_tokenizer_also_in_another_process() -> None:
    here = {name: trained(name).hash for name in TRAINERS}
    again = f"import json, runpy; module = runpy.run_path({__file__!r})\n"
    again += "print(json.dumps({name: module['trained'](name).hash for name in module['TRAINERS']}))"
    printed = subprocess.run([sys.executable, "-c", again], capture_output=True, check=True, text=True).stdout
    assert json.loads(printed) == here
    assert len(set(here.values())) == len(here)


@EVERY
def test_a_saved_or_copied_tokenizer_is_the_same(name: str, tmp_path: Path) -> None:
    tokenizer, file = trained(name), tmp_path / "tokenizer.json"
    tokenizer.save(file)
    loaded = File(path=str(file)).train([], special_tokens=SPECIAL_TOKENS)
    for other in (loaded, copy.deepcopy(tokenizer)):
        assert other.hash == tokenizer.hash
        assert other.encode_batch(corpus()) == tokenizer.encode_batch(corpus())


def test_a_file_of_others_neither_cuts_nor_pads_nor_adds_tokens(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    trained("byte_bpe").save(file)
    foreign = library.Tokenizer.from_file(str(file))
    foreign.enable_truncation(2)
    foreign.enable_padding(length=9)
    foreign.post_processor = library.processors.TemplateProcessing("$A <eos>", special_tokens=[("<eos>", 0)])
    foreign.save(str(file))
    assert Tokenizer.load(file).encode("some ordinary text") == trained("byte_bpe").encode("some ordinary text")


@pytest.mark.parametrize("trainer", [ByteBPE, WordPiece, Unigram])
def test_a_vocabulary_too_small_is_refused_and_the_least_one_named_works(trainer: type) -> None:
    with pytest.raises(ValueError, match=r"tokenizer\.vocab_size=3: at least (\d+)") as error:
        trainer(vocab_size=3).train(corpus(), special_tokens=SPECIAL_TOKENS)
    least = int(str(error.value).split("at least ")[1].split(",")[0])
    assert trainer(vocab_size=least).train(corpus(), special_tokens=SPECIAL_TOKENS).vocab_size <= least


def test_training_reads_no_more_than_max_characters() -> None:
    asked = []
    texts = (asked.append(text) or text for text in ["abc", "def", "ghi", "jkl", "mno"])
    assert Characters(max_characters=5).train(texts, special_tokens=()).vocab_size == len("abcde") + len(COMMON) + 1
    assert len(asked) <= 3


def test_mistakes_with_a_file_are_told_in_one_line(tmp_path: Path) -> None:
    Bytes().train([], special_tokens=["<eos>"]).save(tmp_path / "tokenizer.json")
    (tmp_path / "other.json").write_text("{}")

    def mistake(name: str) -> str:
        with pytest.raises(ValueError) as error:
            File(path=str(tmp_path / name)).train([], special_tokens=SPECIAL_TOKENS)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "no special token <pad>" in mistake("tokenizer.json")
    assert "did you mean" in mistake("tokeniser.json")
    assert "not a tokenizer.json" in mistake("other.json")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_fork_can_tokenize_in_silence() -> None:
    program = (
        "import os\nfrom transformer_lab.data.tokenizers import Bytes\n"
        "tokenizer = Bytes().train([], special_tokens=())\ntokenizer.encode_batch(['a b'] * 10_000)\n"
        "child = os.fork()\ntokenizer.encode_batch(['a b'] * 10_000)\n"
        "os._exit(0) if not child else os.waitpid(child, 0)"
    )
    bare = {name: value for name, value in os.environ.items() if name != "TOKENIZERS_PARALLELISM"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=bare, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_recipe_is_covered() -> None:
    assert {type(trainer) for trainer in TRAINERS.values()} | {File} == set(TokenizerTrainer.__subclasses__())


@pytest.mark.parametrize(
    ("text", "small", "bare"),
    [
        ("El Año  de Él\n", "el año de él ", "el ano de el "),
        ("ΟΔΟΣ Άλφα Σ", "οδος άλφα σ", "οδος αλφα σ"),
        ("İstanbul", "istanbul", "istanbul"),
        ("Йод", "йод", "йод"),
        ("がんばれ ガス か\u3099", "がんばれ ガス が", "がんばれ ガス が"),
        ("น้ำที่นี่ไม่", "น้ำที่นี่ไม่", "น้ำที่นี่ไม่"),
        ("한국어", "한국어", "한국어"),
        ("कीमत", "कीमत", "कीमत"),
        ("Tiê\u0301ng Việt", "tiếng việt", "tieng viet"),
        ("Say ##it# (really)!", "say ##it# (really)!", "say ##it# (really)!"),
    ],
)
def test_small_letters_and_accents_are_apart(text: str, small: str, bare: str) -> None:
    def read(**options: bool) -> str:
        tokenizer = WordPiece(vocab_size=400, **options).train([text, *corpus()], special_tokens=())
        return tokenizer.decode(tokenizer.encode(text))

    assert read() == small and read(strip_accents=True) == bare
    assert read(lowercase=False) == text


def test_a_word_of_any_length_is_split_and_never_unknown() -> None:
    tokenizer = trained("wordpiece")
    for word in ("ab" * 50, "étain" * 200, "s" * 5000, "zqjx" * 300):
        ids = tokenizer.encode(word)
        assert tokenizer.special("<unk>") not in ids and tokenizer.decode(ids) == word


def test_one_unknown_letter_does_not_take_its_word_along() -> None:
    tokenizer = trained("wordpiece")
    ids = tokenizer.encode("insouξlerons")
    assert ids.count(tokenizer.special("<unk>")) == 1 and tokenizer.decode(ids) == "insoulerons"


@pytest.mark.parametrize("trainer", [WordPiece, Unigram])
def test_characters_are_unknown_only_where_merges_need_the_room(trainer: type) -> None:
    """Chinese has thousands; of a text without anything to merge all stay that have a place."""
    chance = random.Random(0)
    signs = [chr(0x4E00 + i) for i in range(3000)]
    texts = ["。".join(chance.choices(signs, weights=range(1, 3001), k=50)) for _ in range(600)]
    tokenizer = trainer(vocab_size=4096).train(texts, special_tokens=())
    unknown = tokenizer.special("<unk>")
    ids = tokenizer.encode_batch(texts)
    assert tokenizer.vocab_size > 2500 and not any(unknown in row for row in ids)
    assert [tokenizer.decode(row) for row in ids] == texts
    small = trainer(vocab_size=1000).train(texts, special_tokens=())
    assert small.vocab_size <= 1000 and any(unknown in row for row in small.encode_batch(texts))


@pytest.mark.parametrize("name", ["byte_bpe", "wordpiece", "unigram"])
@pytest.mark.parametrize("text", ["नमस्ते दुनिया में", "তুমি কেমন আছো", "தமிழ் மொழி பேசு", "שלום לכם כולם", "Мой дядя самых"])
def test_words_with_marks_are_whole(name: str, text: str) -> None:
    tokenizer = type(TRAINERS[name])(vocab_size=320).train(
        [" ".join(text)], special_tokens=()
    )  # knows letters, no words
    ids = tokenizer.encode(text)
    assert 1 + (~tokenizer.continues[ids[1:]]).sum() == len(text.split()) < len(ids)


@pytest.mark.parametrize("name", ["byte_bpe", "wordpiece", "unigram"])
@pytest.mark.parametrize(
    "text",
    [
        "きのうともだちとえいがをみました",
        "昨天我和朋友看了电影",
        "เมื่อวานฉันไปดูหนังกับเพื่อน",
        "ເຈົ້າຢູ່ໃສ",
        "ខ្ញុំទៅផ្សារ",
        "ကျွန်တော်သွားမယ်",
    ],
)
def test_without_spaces_a_piece_is_a_word_of_its_own(name: str, text: str) -> None:
    """What is hidden of a clause is neither nothing nor much of it."""
    chance = random.Random(0)  # texts of the same letters
    texts = ["".join(chance.sample(text, len(text))) for _ in range(200)]
    tokenizer = type(TRAINERS[name])(vocab_size=320).train(texts, special_tokens=())
    ids = np.array(tokenizer.encode(text * 5))
    masking = Masking(0.15, tokenizer.special("<mask>"), tokenizer.ordinary, tokenizer.continues)
    counts = []
    for seed in range(200):
        _, indices = masking(ids, np.zeros(len(ids), dtype=np.int64), np.array([seed], dtype=np.uint64))
        counts.append(len(indices))
    assert max(counts) < len(ids) / 2 and np.count_nonzero(counts) > 150


def test_tokens_that_hold_the_end_of_one_letter_and_the_next_do_not_tie_a_clause_together() -> None:
    text = "きのうともだちとえいがをみました"
    tokenizer = ByteBPE(vocab_size=280).train([text], special_tokens=())
    ids = tokenizer.encode(text)
    assert (~tokenizer.continues[ids]).sum() > 0.8 * len(ids)


@pytest.mark.parametrize("name", ["byte_bpe", "wordpiece", "unigram"])
def test_it_is_known_which_tokens_go_on_with_a_word(name: str) -> None:
    text = "incomprehensible misunderstandings 12345 (well)"
    tokenizer = trained(name)
    ids = tokenizer.encode(text)
    words, continues = [], tokenizer.continues[ids].tolist()
    for token, goes_on in zip(ids, continues, strict=True):
        words = [*words[:-1], [*words[-1], token]] if goes_on and words else [*words, [token]]
    found = [tokenizer.decode(word).strip().replace("##", "") for word in words]
    assert "incomprehensible" in found and "misunderstandings" in found
    assert not any(" " in word for word in found)
