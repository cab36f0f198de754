"""Packing: no token lost, none doubled, no pack too large, and documents kept whole."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transformer_lab.data.packing import SPAN, Blocks, Packs, Windows, cut_rows, ranges
from transformer_lab.data.store import Corpus, Ragged
from transformer_lab.tasks.language_modeling import Collate

END = 999


def corpus_of(lengths):
    """Documents of these lengths; each token is a number of its own, but for the end tokens."""
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    tokens = np.arange(offsets[-1]) + 1000
    tokens[offsets[1:] - 1] = END
    return Corpus({"tokens": Ragged(tokens.astype(np.uint16), offsets)}, ("tokens",), 1)


def packs_of(corpus, capacity):
    def pieces(corpus, begin, end):
        return cut_rows(corpus["tokens"].offsets[begin : end + 1], capacity)

    return Packs(corpus=corpus, capacity=capacity, layout=SPAN, pieces=pieces, cache_key="documents")


documents = st.lists(st.integers(1, 40), min_size=1, max_size=60)
PACKINGS = {"blocks": Blocks, "packs": packs_of}


@settings(deadline=None)
@given(lengths=documents, capacity=st.integers(1, 32), packing=st.sampled_from(sorted(PACKINGS)))
def test_every_token_is_a_target_exactly_once(lengths, capacity, packing):
    corpus = corpus_of(lengths)
    packed = PACKINGS[packing](corpus, capacity)
    pieces = packed.pieces(np.arange(packed.num_units))
    assert sorted(ranges(pieces["start"], pieces["length"])) == list(range(corpus.num_tokens))
    assert packed.num_tokens == corpus.num_tokens


@settings(deadline=None)
@given(lengths=documents, capacity=st.integers(2, 32), data=st.data())
def test_windows_score_every_token_once_and_with_the_context_they_promise(lengths, capacity, data):
    corpus, stride = corpus_of(lengths), data.draw(st.integers(1, capacity))
    windows = Windows(corpus, capacity, stride)
    pieces = windows.pieces(np.arange(windows.num_units))
    starts, sizes, scored = (pieces[name] for name in ("start", "length", "scored"))
    assert (sizes <= capacity).all() and (scored >= 1).all()
    assert ranges(starts + sizes - scored, scored).tolist() == list(range(corpus.num_tokens))
    assert (sizes - scored >= np.minimum(capacity - stride, starts + sizes - scored)).all()
    targets = Collate(END)(corpus, pieces, 0).labels.tolist()
    assert targets == corpus["tokens"].values.tolist()


@settings(deadline=None)
@given(lengths=documents, capacity=st.integers(1, 32))
def test_packs_fit_and_keep_short_documents_whole(lengths, capacity):
    corpus = corpus_of(lengths)
    packs = packs_of(corpus, capacity)
    offsets = corpus["tokens"].offsets
    for unit in range(packs.num_units):
        spans = packs.pieces(np.array([unit]))
        starts, sizes = spans["start"], spans["length"]
        assert sizes.sum() <= capacity
        # A sequence begins at a document, or a whole number of contexts into one, and never leaves it.
        document = np.searchsorted(offsets, starts, side="right") - 1
        assert ((starts - offsets[document]) % capacity == 0).all()
        assert (starts + sizes <= offsets[document + 1]).all()


def test_packs_leave_little_room():
    lengths = np.random.default_rng(0).geometric(1 / 60, size=5000)
    packs = packs_of(corpus_of(lengths), 256)
    assert lengths.sum() / (packs.num_units * 256) > 0.97


@pytest.mark.parametrize("packing", PACKINGS)
def test_inputs_are_the_tokens_before_the_targets(packing):
    corpus = corpus_of([5, 3, 9])
    batch = Collate(END)(corpus, PACKINGS[packing](corpus, 4).pieces(np.arange(3)), 0)
    tokens = corpus["tokens"].values
    before = dict(zip(tokens[1:].tolist(), tokens[:-1].tolist(), strict=True)) | {1000: END}
    for token, target in zip(batch.tokens.tolist(), batch.labels.tolist(), strict=True):
        assert target == END or token == before[target]


def test_a_document_begins_with_the_token_that_a_vocabulary_has_for_that():
    corpus, begin = corpus_of([5, 3, 9]), END + 1
    pieces = PACKINGS["blocks"](corpus, 4).pieces(np.arange(3))
    usual, found = (Collate(END, first)(corpus, pieces, 0) for first in (END, begin))
    assert found.tokens.tolist() == [begin if token == END else token for token in usual.tokens.tolist()]
    assert found.labels.tolist() == usual.labels.tolist() and begin in found.tokens.tolist()


def test_whole_documents_start_from_the_end_token():
    corpus = corpus_of([5, 3, 9])
    packs = packs_of(corpus, 9)
    batch = Collate(END)(corpus, packs.pieces(np.arange(packs.num_units)), 0)
    firsts = batch.tokens[batch.layout.offsets[:-1].long()]
    assert firsts.tolist() == [END] * 3
