"""RoBERTa (Liu et al., 2019, arXiv:1907.11692) and XLM-R (Conneau et al., 2020, arXiv:1911.02116), as transformers has
them: BERTs under other names, whose positions begin behind the number of the token that fills up.

What was trained further here leaves as a BERT, which computes the same.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from transformer_lab.interop import bert
from transformer_lab.interop.families import CLASSIFICATION, MLM_NSP, Family, Head, Keys
from transformer_lab.interop.options import Key, Ours, Theirs
from transformer_lab.interop.weights import Form, Pair, both

if TYPE_CHECKING:
    from torch import Tensor

PAD = 1  # that token
BEFORE = PAD + 1  # rows of the table of positions that no token of a text has


class Places(Key):
    """How many positions there are for texts."""

    def inward(self, theirs: Theirs) -> dict[str, Any]:
        if (pad := theirs.get("pad_token_id", PAD)) != PAD:
            raise theirs.refused("pad_token_id", pad, [PAD])
        return {self.ours: theirs.whole(self.theirs) - BEFORE}

    def outward(self, ours: Ours) -> dict[str, Any]:
        return {self.theirs: (ours.get(self.ours) or 0) + BEFORE, "pad_token_id": PAD}


def _behind(table: "Tensor") -> "Tensor":
    from torch.nn.functional import pad

    return pad(table, (0, 0, BEFORE, 0))


TABLE = "embeddings.position_embeddings.weight"


def body(keys: Keys) -> Iterator[Pair]:
    for pair in bert.body(keys):
        yield Pair(TABLE, str(pair.ours), Form(lambda x: x[BEFORE:], _behind)) if pair.theirs == TABLE else pair


def masked(keys: Keys) -> Iterator[Pair]:
    yield from both("lm_head.dense", "transform.dense")
    yield from both("lm_head.layer_norm", "transform.norm")
    yield Pair("lm_head.bias", "head.bias")


def classifier(keys: Keys) -> Iterator[Pair]:
    yield from both("classifier.dense", "head.pooler")
    yield from both("classifier.out_proj", "head.out")


def like(model_type: str, name: str) -> Family:
    return bert.like(
        model_type,
        Places("max_position_embeddings", "position.max_length"),
        body,
        (
            Head(f"{name}ForMaskedLM", MLM_NSP, "mlm_nsp", bert.WORDS, masked),
            Head(f"{name}ForSequenceClassification", CLASSIFICATION, "classification", bert.SEQUENCES, classifier),
            Head(f"{name}Model"),
        ),
    )


ROBERTA, XLM_ROBERTA = like("roberta", "Roberta"), like("xlm-roberta", "XLMRoberta")
