"""BLEU and chrF as sacreBLEU computes them (Post, 2018, arXiv:1804.08771), from statistics that add up over batches."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor


@cache
def _metrics() -> tuple[Any, Any]:
    from sacrebleu.metrics import BLEU, CHRF  # here, for it costs a second

    return BLEU(), CHRF()


def signature() -> str:
    """Which BLEU and chrF, in sacreBLEU's words; cased, with its own tokenizer 13a."""
    bleu, chrf = _metrics()
    for metric in (bleu, chrf):
        metric.corpus_score([""], [[""]])  # the number of references is known after a score only
    return f"BLEU {bleu.get_signature()} · chrF {chrf.get_signature()}"


def statistics(hypotheses: Sequence[str], references: Sequence[str]) -> dict[str, Tensor]:
    """Counts of n-grams and lengths, summed over the texts, and how many are equal to their reference."""
    found = {}
    for name, metric in zip(("bleu", "chrf"), _metrics(), strict=True):
        each = metric._extract_corpus_statistics(list(hypotheses), [list(references)])
        found[name] = torch.tensor(each, dtype=torch.float64).sum(0)
    pairs = zip(hypotheses, references, strict=True)
    equal = sum(hypothesis.strip() == reference.strip() for hypothesis, reference in pairs)
    found["exact"] = torch.tensor([equal, len(hypotheses)], dtype=torch.float64)
    return found


def corpus_scores(sums: dict[str, Tensor]) -> dict[str, float]:
    """BLEU and chrF from 0 to 100, and the share of texts that equal their reference."""
    bleu, chrf = _metrics()
    # The same call that sacreBLEU makes on the sum of its statistics.
    score = bleu._aggregate_and_compute([sums["bleu"].round().long().tolist()]).score
    equal, texts = sums["exact"].tolist()
    return {
        "bleu": score,
        "chrf": chrf._aggregate_and_compute([sums["chrf"].round().long().tolist()]).score,
        "exact_match": equal / texts,
    }
