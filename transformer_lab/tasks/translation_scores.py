"""BLEU and chrF as sacreBLEU computes them (Post, 2018, arXiv:1804.08771), from statistics that add up over batches."""

from collections.abc import Iterable, Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor

Tokenizer = Literal["13a", "intl", "zh", "char", "none", "ja-mecab", "ko-mecab", "flores101", "flores200", "spm"]
# By the language that is written: words where signs of all scripts part them, or letters where no spaces do.
LANGUAGES: dict[str, Tokenizer] = {
    **dict.fromkeys(("zh", "yue"), "zh"),
    **dict.fromkeys(("ja", "th", "lo", "km", "my"), "char"),
    **dict.fromkeys(("hi", "bn", "ar", "fa", "ur"), "intl"),
}
NEEDS = {
    "ja-mecab": ("MeCab", "sacrebleu[ja]"),
    "ko-mecab": ("mecab_ko", "sacrebleu[ko]"),
    **dict.fromkeys(("flores101", "flores200", "spm"), ("sentencepiece", "sentencepiece")),
}
FEW_SPACES = 1 / 20  # of the characters; in English it is one in six, in Vietnamese one in four
LOOKED_AT = 10_000  # texts


def tokenizer_for(language: str | None, texts: Iterable[str]) -> Tokenizer:
    """sacreBLEU's tokenizer for a language by its code; of one that is not listed, by whether words are parted."""
    if language in LANGUAGES:
        return LANGUAGES[language]
    characters = spaces = 0
    for text, _ in zip(texts, range(LOOKED_AT), strict=False):
        inner = " ".join(text.split())
        characters += len(inner)
        spaces += inner.count(" ")
    return "char" if characters and spaces / characters < FEW_SPACES else "13a"


def refuse_missing(tokenizer: Tokenizer) -> None:
    """Raises ValueError where a tokenizer needs a package that is not there."""
    package, install = NEEDS.get(tokenizer, ("sys", ""))
    if find_spec(package) is None:
        raise ValueError(f"task.bleu_tokenizer: {tokenizer} needs the package {package}; pip install {install!r}")


@cache
def _metrics(tokenizer: Tokenizer) -> tuple[Any, Any]:
    from sacrebleu.metrics import BLEU, CHRF  # here, for it costs a second

    return BLEU(tokenize=tokenizer), CHRF()


def bleu_signature(tokenizer: Tokenizer) -> str:
    """Which BLEU and chrF, in sacreBLEU's words; cased."""
    bleu, chrf = _metrics(tokenizer)
    for metric in (bleu, chrf):
        metric.corpus_score([""], [[""]])  # the number of references is known after a score only
    return f"BLEU {bleu.get_signature()} · chrF {chrf.get_signature()}"


def statistics(hypotheses: Sequence[str], references: Sequence[str], tokenizer: Tokenizer) -> dict[str, Tensor]:
    """Of each text (B, …) the counts of n-grams and lengths, and whether it is equal to its reference."""
    found = {}
    for name, metric in zip(("bleu", "chrf"), _metrics(tokenizer), strict=True):
        each = metric._extract_corpus_statistics(list(hypotheses), [list(references)])
        found[name] = torch.tensor(each, dtype=torch.float64)
    pairs = zip(hypotheses, references, strict=True)
    equal = [[float(hypothesis.strip() == reference.strip()), 1.0] for hypothesis, reference in pairs]
    found["exact"] = torch.tensor(equal, dtype=torch.float64)
    return found


def corpus_scores(sums: dict[str, Tensor], tokenizer: Tokenizer) -> dict[str, float]:
    """BLEU and chrF from 0 to 100, and the share of texts that equal their reference."""
    bleu, chrf = _metrics(tokenizer)
    # The same call that sacreBLEU makes on the sum of its statistics.
    score = bleu._aggregate_and_compute([sums["bleu"].round().long().tolist()]).score
    equal, texts = sums["exact"].tolist()
    return {
        "bleu": score,
        "chrf": chrf._aggregate_and_compute([sums["chrf"].round().long().tolist()]).score,
        "exact_match": equal / texts,
    }
