"""A pass over a split: every token counts once, however the split is cut into batches."""

import math

import numpy as np
import pytest
import torch

from tests.conftest import small_task
from transformer_lab.data.sources.text import Text
from transformer_lab.data.steps import Pass
from transformer_lab.data.store import prepare
from transformer_lab.training.evaluation import evaluate
from transformer_lab.training.hardware import Hardware

CPU = Hardware(accelerator="cpu", precision="fp32", compile=False, micro_batch_tokens=1)


@pytest.fixture(scope="module")
def corpus(corpus_folder, tmp_path_factory):
    words = small_task().tokenizer
    cache = tmp_path_factory.mktemp("cache")
    store = prepare(Text(path=str(corpus_folder)), words, end=words.special("<eos>"), cache_dir=cache)
    return store.splits["test"].head(5000)


@pytest.mark.parametrize("packing", ["stream", "documents"])
def test_metrics_do_not_depend_on_the_size_of_batches(corpus, packing):
    task = small_task(f"task.packing={packing}")
    found = [evaluate(task, Pass(packing=task.packing(corpus), collate=task.collate, micro_batch_tokens=size), CPU)
             for size in (64, 200, 10**6)]  # fmt: skip
    for metrics in found[1:]:
        assert metrics == pytest.approx(found[0], rel=1e-6)


def test_bits_per_byte_are_the_surprise_of_the_whole_text(corpus):
    task = small_task("task.context=100")
    batches = Pass(packing=task.packing(corpus), collate=task.collate, micro_batch_tokens=100)
    bits = 0.0
    with torch.no_grad():
        for index in range(len(batches)):
            batch = batches[index]
            log_p = task.logits(task.model(batch.tokens, batch.layout)).log_softmax(-1)
            bits -= log_p[torch.arange(len(batch.targets)), batch.targets].sum().item() / math.log(2)
    text_bytes = sum(end - begin - 1 for begin, end in zip(corpus.offsets, corpus.offsets[1:], strict=False))
    metrics = evaluate(task, batches, CPU)
    assert metrics["loss"] == pytest.approx(bits * math.log(2) / len(corpus.tokens), rel=1e-6)
    # The cut corpus counts its bytes in proportion, which is exact up to the end tokens of its few documents.
    assert metrics["bits_per_byte"] == pytest.approx(bits / text_bytes, rel=2e-3)
    assert metrics["perplexity"] == pytest.approx(np.exp(metrics["loss"]))
