"""The store: what was tokenized is what is read, built once, also by two processes at a time."""

import multiprocessing
import os

import numpy as np
import pytest

from transformer_lab.data.sources.text import Text
from transformer_lab.data.store import build_beside, prepare
from transformer_lab.data.tokenizers import ByteBPE, Bytes


@pytest.fixture
def words():
    return Bytes().train([], specials=["<eos>"])


def test_the_store_holds_every_document_and_its_end(corpus_folder, words, tmp_path):
    source = Text(path=str(corpus_folder))
    store = prepare(source, words, end=words.special("<eos>"), cache_dir=tmp_path)
    for split, corpus in store.splits.items():
        texts = [document.text for where, document in source.read() if where == split]
        begins, ends = corpus.offsets[:-1], corpus.offsets[1:]
        assert [words.decode(corpus.tokens[b:e].tolist()) for b, e in zip(begins, ends, strict=True)] == texts
        assert (corpus.tokens[ends - 1] == words.special("<eos>")).all()
        assert corpus.text_bytes == sum(len(text.encode()) for text in texts)
        assert corpus.tokens.dtype == np.uint16


def test_it_is_built_again_only_for_other_data_tokenizer_or_options(corpus_folder, words, tmp_path):
    def folders(source, tokenizer):
        prepare(source, tokenizer, end=tokenizer.special("<eos>"), cache_dir=tmp_path)
        return {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("store-*")}

    first = folders(Text(path=str(corpus_folder)), words)
    assert folders(Text(path=str(corpus_folder)), words) == first
    assert len(folders(Text(path=str(corpus_folder), test=0.2), words)) == 2
    bpe = ByteBPE(vocab_size=300).train(["a text"] * 9, specials=["<eos>"])
    assert len(folders(Text(path=str(corpus_folder)), bpe)) == 3


def _build(target):
    build_beside(target, lambda folder: (folder / "who").write_text(str(os.getpid())))


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
        build_beside(tmp_path / "store", fail)
    assert not list(tmp_path.iterdir())
