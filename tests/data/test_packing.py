"""Packing: no token lost, none doubled, no pack too large, and documents kept whole."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transformer_lab.data.packing import Blocks, Packs, ranges
from transformer_lab.data.store import Corpus
from transformer_lab.tasks.language_modeling import Collate

END = 999


def corpus_of(lengths):
    """Documents of these lengths; each token is a number of its own, but for the end tokens."""
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    tokens = np.arange(offsets[-1]) + 1000
    tokens[offsets[1:] - 1] = END
    return Corpus(tokens.astype(np.uint16), offsets, 1)


documents = st.lists(st.integers(1, 40), min_size=1, max_size=60)


@settings(deadline=None)
@given(lengths=documents, context=st.integers(1, 32), packing=st.sampled_from([Blocks, Packs]))
def test_every_token_is_a_target_exactly_once(lengths, context, packing):
    corpus = corpus_of(lengths)
    packed = packing(corpus=corpus, context=context)
    starts, sizes = packed.sequences(np.arange(packed.num_units))
    assert sorted(ranges(starts, sizes)) == list(range(len(corpus.tokens)))


@settings(deadline=None)
@given(lengths=documents, context=st.integers(1, 32))
def test_packs_fit_and_keep_short_documents_whole(lengths, context):
    corpus = corpus_of(lengths)
    packs = Packs(corpus=corpus, context=context)
    for unit in range(packs.num_units):
        starts, sizes = packs.sequences(np.array([unit]))
        assert sizes.sum() <= context
        # A sequence begins at a document, or a whole number of contexts into one, and never leaves it.
        document = np.searchsorted(corpus.offsets, starts, side="right") - 1
        assert ((starts - corpus.offsets[document]) % context == 0).all()
        assert (starts + sizes <= corpus.offsets[document + 1]).all()


def test_packs_leave_little_room():
    lengths = np.random.default_rng(0).geometric(1 / 60, size=5000)
    packs = Packs(corpus=corpus_of(lengths), context=256)
    assert lengths.sum() / (packs.num_units * 256) > 0.97


@pytest.mark.parametrize("packing", [Blocks, Packs])
def test_inputs_are_the_tokens_before_the_targets(packing):
    corpus = corpus_of([5, 3, 9])
    batch = Collate(END)(corpus, *packing(corpus=corpus, context=4).sequences(np.arange(3)))
    before = dict(zip(corpus.tokens[1:].tolist(), corpus.tokens[:-1].tolist(), strict=True)) | {1000: END}
    for token, target in zip(batch.tokens.tolist(), batch.targets.tolist(), strict=True):
        assert target == END or token == before[target]


def test_whole_documents_start_from_the_end_token():
    corpus = corpus_of([5, 3, 9])
    packs = Packs(corpus=corpus, context=9)
    batch = Collate(END)(corpus, *packs.sequences(np.arange(packs.num_units)))
    firsts = batch.tokens[batch.layout.offsets[:-1].long()]
    assert firsts.tolist() == [END] * 3
