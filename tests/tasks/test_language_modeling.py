"""What a language model makes of a line of text."""

import numpy as np
import pytest
import torch

from tests.conftest import SMALL, VOCABULARY, settings, small_task
from transformer_lab.build import build_task
from transformer_lab.data.steps import Pass
from transformer_lab.data.store import Corpus, Ragged
from transformer_lab.data.tokenizers import WordPiece

TEXT = "Return the value of the parameter, or the values of several parameters. " * 20


def test_no_line_gives_no_text_and_every_line_one():
    task = small_task()
    assert task.complete([]) == []
    assert len(task.complete(["a", "", "Return the " * 50], max_new_tokens=4)) == 3


def test_many_lines_are_continued_in_parts_without_a_seam():
    task = small_task()
    lines = [f"line {number}" for number in range(70)]
    whole = task.complete(lines, max_new_tokens=4, seed=5)
    assert task.complete(lines[64:], max_new_tokens=4, seed=5 + 64) == whole[64:]


def test_a_prompt_too_long_for_the_context_loses_its_beginning():
    task = small_task()
    end = "z" * (64 - 10)
    assert task.complete(["a" * 500 + end], max_new_tokens=10) == task.complete([end], max_new_tokens=10)


@pytest.mark.parametrize("number", [0, 64])
def test_more_than_the_context_is_refused(number):
    with pytest.raises(ValueError, match="max_new_tokens"):
        small_task().complete(["a"], max_new_tokens=number)


def test_words_are_parted_and_joined_as_the_tokenizer_does():
    """With WordPiece, whether a space comes between prompt and continuation depends on the first new token."""
    torch.manual_seed(0)
    words = WordPiece(vocab_size=120).train([TEXT], specials=["<eos>"])
    task = build_task(settings(*SMALL), words, {})
    torch.nn.init.normal_(task.head.weight)
    for seed in range(20):
        written = task.complete(["return the"], max_new_tokens=3, seed=seed)[0]
        assert "##" not in written
        ids = words.encode("return the" + written)
        assert words.decode(ids) == "return the" + written


def test_tied_embeddings_share_one_matrix():
    tied, free = small_task("task.tie_embeddings=true"), small_task()
    assert tied.head.matrix is tied.model.embedding.weight
    sizes = [sum(p.numel() for p in task.parameters()) for task in (free, tied)]
    assert sizes[0] - sizes[1] == VOCABULARY * 32


def test_samples_show_how_documents_begin_and_what_the_model_makes_of_it():
    task = small_task()
    tokens = [*task.tokenizer.encode("Return the value."), 0, *task.tokenizer.encode("| a table |"), 0]
    rows = Ragged(np.array(tokens, dtype=np.uint16), np.array([0, 18, len(tokens)]))
    packing = task.packing(Corpus({"tokens": rows}, ("tokens",), 28))
    text = task.samples(Pass(packing=packing, collate=task.collate, micro_batch_tokens=64))
    assert "    Return the v▸" in text and "    | a table |▸" in text
