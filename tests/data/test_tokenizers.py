"""Text survives its tokens, special tokens stay special, and training is repeatable."""

import copy
import json
import os
import random
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import tokenizers as library
from hypothesis import given
from hypothesis import strategies as st

from transformer_lab.data.tokenizers import SPECIALS as COMMON
from transformer_lab.data.tokenizers import ByteBPE, Bytes, Characters, File, Recipe, Tokenizer, Unigram, WordPiece

SPECIALS = ("<eos>", "<pad>")
EVERY_SPECIAL = (*COMMON, "<pad>")
RECIPES = {
    "byte_bpe": ByteBPE(vocab_size=400),
    "wordpiece": WordPiece(vocab_size=400),
    "unigram": Unigram(vocab_size=400),
    "characters": Characters(),
    "bytes": Bytes(),
}
EVERY = pytest.mark.parametrize("name", RECIPES)


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
    return RECIPES[name].train(corpus(), specials=SPECIALS)


@given(st.text())
@pytest.mark.parametrize("name", ["byte_bpe", "bytes"])
def test_any_text_survives_byte_level_tokens(name: str, text: str) -> None:
    assert trained(name).decode(trained(name).encode(text)) == text


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
    here = {name: trained(name).hash for name in RECIPES}
    again = f"import json, runpy; module = runpy.run_path({__file__!r})\n"
    again += "print(json.dumps({name: module['trained'](name).hash for name in module['RECIPES']}))"
    printed = subprocess.run([sys.executable, "-c", again], capture_output=True, check=True, text=True).stdout
    assert json.loads(printed) == here
    assert len(set(here.values())) == len(here)


@EVERY
def test_a_saved_or_copied_tokenizer_is_the_same(name: str, tmp_path: Path) -> None:
    tokenizer, file = trained(name), tmp_path / "tokenizer.json"
    tokenizer.save(file)
    loaded = File(path=str(file)).train([], specials=SPECIALS)
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


@pytest.mark.parametrize("recipe", [ByteBPE, WordPiece, Unigram])
def test_a_vocabulary_too_small_is_refused_and_the_least_one_named_works(recipe: type) -> None:
    with pytest.raises(ValueError, match=r"tokenizer\.vocab_size=3: at least (\d+)") as error:
        recipe(vocab_size=3).train(corpus(), specials=SPECIALS)
    least = int(str(error.value).split("at least ")[1].split(",")[0])
    assert recipe(vocab_size=least).train(corpus(), specials=SPECIALS).vocab_size <= least


def test_training_reads_no_more_than_max_characters() -> None:
    asked = []
    texts = (asked.append(text) or text for text in ["abc", "def", "ghi", "jkl", "mno"])
    assert Characters(max_characters=5).train(texts, specials=()).vocab_size == len("abcde") + len(COMMON) + 1
    assert len(asked) <= 3


def test_mistakes_with_a_file_are_told_in_one_line(tmp_path: Path) -> None:
    Bytes().train([], specials=["<eos>"]).save(tmp_path / "tokenizer.json")
    (tmp_path / "other.json").write_text("{}")

    def mistake(name: str) -> str:
        with pytest.raises(ValueError) as error:
            File(path=str(tmp_path / name)).train([], specials=SPECIALS)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "no special token <pad>" in mistake("tokenizer.json")
    assert "did you mean" in mistake("tokeniser.json")
    assert "not a tokenizer.json" in mistake("other.json")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_fork_can_tokenize_in_silence() -> None:
    program = (
        "import os\nfrom transformer_lab.data.tokenizers import Bytes\n"
        "tokenizer = Bytes().train([], specials=())\ntokenizer.encode_batch(['a b'] * 10_000)\n"
        "child = os.fork()\ntokenizer.encode_batch(['a b'] * 10_000)\n"
        "os._exit(0) if not child else os.waitpid(child, 0)"
    )
    bare = {name: value for name, value in os.environ.items() if name != "TOKENIZERS_PARALLELISM"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=bare, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_recipe_is_covered() -> None:
    assert {type(recipe) for recipe in RECIPES.values()} | {File} == set(Recipe.__subclasses__())


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
