"""A pass over a split: every target counts once, however the split is cut into batches."""

import math

import numpy as np
import pytest
import torch

from tests.conftest import CELLS, batch_for, corpus_for, evaluation_set, small_task
from transformer_lab.data.store import Corpus, Ragged
from transformer_lab.layout import Layout
from transformer_lab.models import token_loss
from transformer_lab.training.evaluation import evaluate
from transformer_lab.training.hardware import Hardware

CPU = Hardware(accelerator="cpu", precision="fp32", compile=False, micro_batch_tokens=1)
LENGTHS = np.random.default_rng(0).geometric(1 / 20, size=60).tolist()


@pytest.mark.parametrize("extra", [[], ["task.packing=documents"], ["task.stride=20"]], ids=str)
@pytest.mark.parametrize("cell", CELLS)
def test_metrics_do_not_depend_on_the_size_of_batches(cell, extra):
    if extra and cell != "language_modeling":
        pytest.skip("an option of language modelling")
    task = small_task(*CELLS[cell], *extra)
    corpus = corpus_for(task, LENGTHS)
    found = [evaluate(task, evaluation_set(task, corpus, size), CPU) for size in (64, 400, 10**6)]
    for other in found[1:]:
        assert other.metrics == pytest.approx(found[0].metrics, rel=1e-6)
        assert other.texts.examples.tolist() == found[0].texts.examples.tolist() and len(other.texts) > 10
        torch.testing.assert_close(other.texts.loss, found[0].texts.loss, rtol=1e-5, atol=1e-7)


def test_what_is_known_of_a_text_is_what_it_has_alone():
    task = small_task("task.packing=documents", "task.context=32")
    lengths = [5, 9, 70, 14]
    corpus = corpus_for(task, lengths)
    column = corpus["tokens"]
    column.values[column.offsets[1:] - 1] = task.end
    found = evaluate(task, evaluation_set(task, corpus, 64), CPU).texts
    assert found.losses["tokens"][:, 1].tolist() == lengths
    for row, length in enumerate(lengths):
        own = Corpus({"tokens": Ragged(column[row], np.array([0, length]))}, ("tokens",), length)
        alone = evaluate(task, evaluation_set(task, own), CPU).texts.losses["tokens"]
        assert float(alone[:, 0].sum()) == pytest.approx(float(found.losses["tokens"][row, 0]), rel=1e-5)


def test_hidden_tokens_are_scored_a_few_at_a_time_as_all_at_once(monkeypatch):
    task = small_task("task=mlm_nsp", "model=encoder")
    batch = batch_for(task, [40, 33, 57])
    with torch.inference_mode():
        states = task.model(batch.tokens, batch.layout, batch.types, indices=batch.indices)
        right = (task.head(task.transform(states)).argmax(1) == batch.labels).sum()
        expected = task(batch).losses
        monkeypatch.setitem(token_loss.LOGITS_AT_ONCE, "cpu", 3 * len(task.head.matrix))
        found = task.score(batch)
    assert found.counts["mlm"].sum(0).tolist() == [len(batch.labels), right] and len(batch.labels) > 9
    assert found.losses.keys() == expected.keys()
    for name, loss in found.losses.items():
        torch.testing.assert_close(loss[:, 0].sum(), expected[name], rtol=1e-6, atol=0)
        assert loss[:, 1].sum() == batch.num_targets[name]


def test_bits_per_byte_are_the_surprise_of_the_whole_text():
    task = small_task("task.context=100")
    corpus = corpus_for(task, LENGTHS)
    batches = evaluation_set(task, corpus, 100)
    bits = 0.0
    with torch.no_grad():
        for batch in batches:
            log_p = task.head(task.model(batch.tokens, batch.layout)).log_softmax(-1)
            bits -= log_p[torch.arange(len(batch.labels)), batch.labels].sum().item() / math.log(2)
    metrics = evaluate(task, batches, CPU).metrics
    assert metrics["loss"] == pytest.approx(bits * math.log(2) / corpus.num_tokens, rel=1e-6)
    assert metrics["bits_per_byte"] == pytest.approx(bits / corpus.text_bytes, rel=1e-6)
    assert metrics["perplexity"] == pytest.approx(np.exp(metrics["loss"]))


def test_strided_evaluation_scores_each_token_once_with_its_context():
    task = small_task("task.context=32", "task.stride=8")
    corpus = corpus_for(task, [150])
    tokens = torch.from_numpy(corpus["tokens"].values)
    before = torch.cat([torch.tensor([task.end]), tokens[:-1]])
    loss = 0.0
    with torch.no_grad():
        for place in range(150):
            # The first window that reaches the token ends 32, 40, 48 … tokens into the text, the last where it ends.
            end = min(150, 32 + 8 * max(0, math.ceil((place + 1 - 32) / 8)))
            begin = max(0, end - 32)
            hidden = task.model(before[begin : place + 1], Layout.of([place + 1 - begin]))
            loss -= task.head(hidden[-1]).log_softmax(-1)[tokens[place]].item()
    found = evaluate(task, evaluation_set(task, corpus, 64), CPU).metrics
    assert found["loss"] == pytest.approx(loss / 150, rel=1e-5)
    whole = small_task("task.context=32", "task.stride=32")
    blocks = small_task("task.context=32")
    last_is_whole, last_is_short = (evaluate(one, evaluation_set(one, corpus), CPU).metrics for one in (whole, blocks))
    assert last_is_whole["loss"] != pytest.approx(last_is_short["loss"], rel=1e-3)


@pytest.mark.parametrize(
    "cell, lengths, words",
    [
        ("mlm", [3], ["task.mlm_probability=0.001"]),
        ("mlm_nsp", [9, 9], ["task.mlm_probability=0.001"]),
        ("classification", [3], ["task.class_weights={a: 0, b: 0}"]),
    ],
)
def test_a_split_in_which_nothing_counts_is_told(cell, lengths, words):
    task = small_task(*CELLS[cell], *words)
    batches = evaluation_set(task, corpus_for(task, lengths))
    with pytest.raises(
        ValueError, match=r"^data: nothing in this split counts for the loss of .*: take a larger split"
    ):
        evaluate(task, batches, CPU)
