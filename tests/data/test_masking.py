"""Masking in number, over more than a million tokens; whole words; and that it is a function of its key."""

import numpy as np
import pytest
import torch

from tests.conftest import corpus_for, small_task
from transformer_lab.data.masking import Masking

VOCABULARY, SPECIAL_TOKENS, MASK = 1000, 5, 3
CONTINUES = np.arange(VOCABULARY) % 3 == 1  # a third of the tokens go on with a word
LENGTHS = np.random.default_rng(1).integers(3, 128, size=20_000)


def masked(share=0.15, words=False, key=0):
    draw = np.random.default_rng(0)
    tokens = draw.integers(SPECIAL_TOKENS, VOCABULARY, LENGTHS.sum())
    begins = np.cumsum(LENGTHS) - LENGTHS
    tokens[begins] = 1
    sequence = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
    seeds = np.random.default_rng(key).integers(0, 2**63, len(LENGTHS)).astype(np.uint64)
    masking = Masking(share, MASK, np.arange(SPECIAL_TOKENS, VOCABULARY), CONTINUES if words else None)
    return tokens, sequence, *masking(tokens, sequence, seeds)


def near(count, total, share):
    """Within three standard deviations of a share."""
    return abs(count / total - share) < 3 * (share * (1 - share) / total) ** 0.5


@pytest.mark.parametrize("words", [False, True])
@pytest.mark.parametrize("share", [0.15, 0.4])
def test_shares_are_those_asked_for(share, words):
    tokens, _, hidden, indices = masked(share, words)
    ordinary = tokens >= SPECIAL_TOKENS
    assert ordinary.sum() > 1_000_000 and near(len(indices), ordinary.sum(), share)
    now, was = hidden[indices], tokens[indices]
    assert near((now == MASK).sum(), len(indices), 0.8)
    # One in 995 random tokens is the one that was there.
    assert near(((now != MASK) & (now != was)).sum(), len(indices), 0.1 * 994 / 995)
    assert near((now == was).sum(), len(indices), 0.1 + 0.1 / 995)
    replaced = now[(now != MASK) & (now != was)]
    counts = np.bincount(replaced, minlength=VOCABULARY)
    assert counts[:SPECIAL_TOKENS].sum() == 0
    assert abs(counts[SPECIAL_TOKENS:] / counts.sum() - 1 / 995).max() < 6 * (1 / 995 / counts.sum()) ** 0.5


def test_specials_are_never_hidden_and_nothing_else_is_changed():
    tokens, _, hidden, indices = masked()
    assert (tokens[indices] >= SPECIAL_TOKENS).all() and (np.diff(indices) > 0).all()
    untouched = np.ones(len(tokens), dtype=bool)
    untouched[indices] = False
    assert (hidden[untouched] == tokens[untouched]).all()


def test_each_sequence_has_its_share():
    tokens, sequence, _, indices = masked()
    hidden = np.bincount(sequence[indices], minlength=len(LENGTHS))
    ordinary = np.bincount(sequence[tokens >= SPECIAL_TOKENS], minlength=len(LENGTHS))
    assert (abs(hidden - 0.15 * ordinary) < 1).all()


def test_masked_tokens_are_even_and_independent():
    tokens, sequence, _, indices = masked()
    within = indices - (np.cumsum(LENGTHS) - LENGTHS)[sequence[indices]]
    reach = LENGTHS >= 100
    counts = np.bincount(within[reach[sequence[indices]]], minlength=128)[1:100]
    assert counts.std() / counts.mean() < 3 * counts.mean() ** -0.5
    followed = indices[
        (indices + 1 < len(tokens)) & (tokens[np.minimum(indices + 1, len(tokens) - 1)] >= SPECIAL_TOKENS)
    ]
    # Whether the next token is hidden does not depend on this one, but that it is one of a fixed number less.
    hidden, ordinary = (np.bincount(sequence[x], minlength=len(LENGTHS)) for x in (indices, tokens >= SPECIAL_TOKENS))
    others = (hidden - 1) / (ordinary - 1).clip(1)
    assert abs(np.isin(followed + 1, indices).mean() - others[sequence[followed]].mean()) < 0.004


def test_words_are_hidden_whole():
    tokens, sequence, _, indices = masked(words=True)
    hidden = np.zeros(len(tokens), dtype=bool)
    hidden[indices] = True
    goes_on = CONTINUES[tokens] & (tokens >= SPECIAL_TOKENS)
    inside = goes_on[1:] & (sequence[1:] == sequence[:-1]) & (tokens[:-1] >= SPECIAL_TOKENS)
    assert (hidden[1:] == hidden[:-1])[inside].all()


def test_another_key_hides_others_and_the_same_key_the_same():
    first, again, other = masked(), masked(), masked(key=1)
    assert (first[3] == again[3]).all() and (first[2] == again[2]).all()
    assert abs(np.isin(first[3], other[3]).mean() - 0.15) < 0.01


def test_another_epoch_hides_other_tokens_of_the_same_pairs_and_a_pass_always_the_same():
    task = small_task("task=mlm_nsp")
    packing = task.packing(corpus_for(task, [60] * 20))
    pieces = packing.pieces(np.arange(packing.num_units))
    first, again, other = (task.collate(packing.corpus, pieces, key) for key in (1, 1, 2))
    assert torch.equal(first.tokens, again.tokens) and torch.equal(first.indices, again.indices)
    both = set(first.indices.tolist()) & set(other.indices.tolist())
    assert len(both) < 0.3 * len(first.indices)  # 15 % by chance
