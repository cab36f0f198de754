"""The store: what was tokenized is what is read, built once, also by two processes at a time."""

import multiprocessing
import os

import numpy as np
import pytest

from transformer_lab.data.cache import obtain
from transformer_lab.data.examples import LabeledText, Pair
from transformer_lab.data.sources.base import Source
from transformer_lab.data.sources.text import Text
from transformer_lab.data.store import prepare
from transformer_lab.data.tokenizers import ByteBPE, Bytes
from transformer_lab.tasks.classification import ClassEncoding
from transformer_lab.tasks.language_modeling import DocumentEncoding
from transformer_lab.tasks.translation import PairEncoding


class Given(Source):
    """Examples at hand."""

    def __init__(self, *examples):
        self.examples = examples

    def cache_key(self):
        return {"examples": repr(self.examples)}

    def read(self):
        yield from self.examples


@pytest.fixture
def words():
    return Bytes().train([], special_tokens=["<eos>"])


def documents(words):
    return DocumentEncoding(words.special("<eos>"))


def test_the_store_holds_every_document_and_its_end(corpus_folder, words, tmp_path):
    source = Text(path=str(corpus_folder))
    store = prepare(source, words, documents(words), cache_dir=tmp_path)
    for split, corpus in store.splits.items():
        texts = [document.text for where, document in source.read() if where == split]
        rows = [corpus["tokens"][row] for row in range(corpus.num_examples)]
        assert [words.decode(row[:-1].tolist()) for row in rows] == texts
        assert {row[-1] for row in rows} == {words.special("<eos>")}
        assert corpus.text_bytes == sum(len(text.encode()) for text in texts)
        assert rows[0].dtype == np.uint16


def test_columns_hold_what_stands_beside_a_text(words, tmp_path):
    texts = Given(
        ("train", LabeledText("a b", ("x",))), ("train", LabeledText("", ("y", "x"))), ("test", LabeledText("c", ()))
    )
    store = prepare(texts, words, ClassEncoding(False, ("x", "y")), cache_dir=tmp_path)
    corpus = store.splits["train"]
    assert [corpus["classes"][row].tolist() for row in range(2)] == [[0], [1, 0]]
    assert [words.decode(corpus["tokens"][row].tolist()) for row in range(2)] == ["a b", ""]
    assert store.splits["test"]["classes"][0].tolist() == []
    pairs = prepare(Given(("train", Pair("an egg", "ein Ei  ß"))), words, PairEncoding(), cache_dir=tmp_path)
    corpus = pairs.splits["train"]
    assert words.decode(corpus["source"][0].tolist()) == "an egg"
    assert corpus["reference"][0].tobytes().decode() == "ein Ei  ß"
    with pytest.raises(ValueError, match="did you mean"):
        prepare(Given(("test", LabeledText("a", ("xx",)))), words, ClassEncoding(False, ("x", "y")), cache_dir=tmp_path)


def test_it_is_built_again_only_for_other_data_tokenizer_or_options(corpus_folder, words, tmp_path):
    def folders(source, tokenizer):
        prepare(source, tokenizer, documents(tokenizer), cache_dir=tmp_path)
        return {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("store-*")}

    first = folders(Text(path=str(corpus_folder)), words)
    assert folders(Text(path=str(corpus_folder)), words) == first
    assert len(folders(Text(path=str(corpus_folder), test=0.2), words)) == 2
    bpe = ByteBPE(vocab_size=300).train(["a text"] * 9, special_tokens=["<eos>"])
    assert len(folders(Text(path=str(corpus_folder)), bpe)) == 3


HUGE = [pytest.param(100_000, planted, marks=pytest.mark.battery) for planted in (0, 1, 100, 1000)]


@pytest.mark.parametrize(("size", "planted"), [(500, 0), (500, 1), (500, 7), (500, 40), *HUGE])
def test_what_splits_share_is_found_and_nothing_else(size, planted, words, tmp_path):
    train = [f"Text number {n}, of the training split." for n in range(size)]
    own = [f"Another text, {n}." for n in range(100)]
    shouted = [text.upper().replace(" ", "  ") for text in train[planted : planted + 3]]
    examples = [("train", text) for text in train] + [("test", text) for text in own + train[:planted] + shouted]
    source = Given(*((split, LabeledText(text, ("x",))) for split, text in examples))
    store = prepare(source, words, ClassEncoding(False, ("x",)), cache_dir=tmp_path)
    (found,) = store.overlaps
    assert (found.split, found.other, found.examples) == ("test", "train", 103 + planted)
    assert (found.exact, found.folded) == (planted, planted + 3)
    told = (
        f"{planted} of the {103 + planted} examples of the test split also stand in the train split, 3 more up to case"
    )
    assert str(found).startswith(told)


def _build(target):
    obtain(target, write=lambda folder: (folder / "who").write_text(str(os.getpid())), read=lambda kept: kept)


def test_builders_at_the_same_time_leave_one_whole_result(tmp_path):
    target = tmp_path / "store"
    processes = [multiprocessing.get_context("fork").Process(target=_build, args=(target,)) for _ in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert {process.exitcode for process in processes} == {0}
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    assert (target / "who").read_text().isdigit()


def test_a_builder_that_fails_leaves_nothing(tmp_path):
    def fail(folder):
        (folder / "half").write_text("…")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        obtain(tmp_path / "store", write=fail, read=lambda kept: kept)
    assert not list(tmp_path.iterdir())
