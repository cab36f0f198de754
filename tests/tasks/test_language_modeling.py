"""What a language model makes of a line of text."""

import json

import numpy as np
import pytest
import torch

from tests.conftest import SMALL, VOCABULARY, evaluation_set, settings, small_task
from transformer_lab.composition.build import build_task
from transformer_lab.data.store import Corpus, Ragged
from transformer_lab.data.tokenizers import Tokenizer, WordPiece
from transformer_lab.layout import Layout

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
    """With BERT's WordPiece, whether a space is between prompt and continuation depends on the first new token."""
    torch.manual_seed(0)
    made = json.loads(WordPiece(vocab_size=120).train([TEXT], special_tokens=["<eos>"]).json)
    made["pre_tokenizer"] = {"type": "BertPreTokenizer"}
    made["decoder"] = {"type": "WordPiece", "prefix": "##", "cleanup": True}
    words = Tokenizer.from_json(json.dumps(made))
    task = build_task(settings(*SMALL), words, {})
    torch.nn.init.normal_(task.head.weight)
    for seed in range(20):
        written = task.complete(["return the"], max_new_tokens=3, seed=seed)[0]
        assert "##" not in written
        ids = words.encode("return the" + written)
        assert words.decode(ids) == "return the" + written


@torch.no_grad()
def test_strided_evaluation_scores_the_end_of_each_window_with_what_is_before_it():
    """Against one window at a time, made by hand: 40 tokens of text, windows of 16, each 5 further."""
    task = small_task("task.context=16", "task.stride=5")
    tokens = np.random.default_rng(0).integers(5, VOCABULARY, 40).astype(np.uint16)
    packing = task.evaluation_packing(Corpus({"tokens": Ragged(tokens, np.array([0, 40]))}, ("tokens",), 40))
    batch = task.collate(packing.corpus, packing.pieces(np.arange(packing.num_units)), 0)
    expected, scored = 0.0, 0
    while scored < 40:
        end = min(40, max(16, scored + 5))
        begin = max(0, end - 16)
        before = [0 if place == 0 else int(tokens[place - 1]) for place in range(begin, end)]
        log_p = task.head(task.model(torch.tensor(before), Layout.of([end - begin]))).log_softmax(-1)
        expected -= sum(float(log_p[place - begin, int(tokens[place])]) for place in range(scored, end))
        scored = end
    assert batch.num_targets == {"tokens": 40}
    assert float(task(batch).losses["tokens"]) == pytest.approx(expected, rel=1e-5)


def test_tied_embeddings_share_one_matrix():
    tied, free = small_task("task.tie_embeddings=true"), small_task()
    assert tied.head.matrix is tied.model.embedding.weight
    sizes = [sum(p.numel() for p in task.parameters()) for task in (free, tied)]
    assert sizes[0] - sizes[1] == VOCABULARY * 32


def test_samples_show_how_documents_begin_and_what_the_model_makes_of_it():
    task = small_task()
    tokens = [*task.tokenizer.encode("Return the value."), 0, *task.tokenizer.encode("| a table |"), 0]
    rows = Ragged(np.array(tokens, dtype=np.uint16), np.array([0, 18, len(tokens)]))
    text = task.samples(evaluation_set(task, Corpus({"tokens": rows}, ("tokens",), 28)))
    assert "    Return the v▸" in text and "    | a table |▸" in text
