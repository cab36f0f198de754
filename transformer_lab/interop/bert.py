"""BERT (Devlin et al., 2019, arXiv:1810.04805), as transformers has it."""

from collections.abc import Iterator
from typing import Any

from transformer_lab.interop.families import (
    CLASSIFICATION,
    ENCODER,
    KIND_OF_LABELS,
    LAYER_NORM,
    LEARNED,
    MLM_NSP,
    OWN_KEYS,
    PASSED,
    POST_NORM,
    SIZES,
    Family,
    Head,
    Keys,
    Table,
    layer,
    plain,
)
from transformer_lab.interop.options import Choice, Fixed, Key, Option, Ours, Usual
from transformer_lab.interop.weights import Pair, both


def body(keys: Keys) -> Iterator[Pair]:
    yield Pair("embeddings.word_embeddings.weight", "model.embedding.weight")
    yield Pair("embeddings.position_embeddings.weight", "model.position.table.weight")
    yield Pair("embeddings.token_type_embeddings.weight", "model.types.weight")
    yield from both("embeddings.LayerNorm", "model.embedding_norm")
    for number in range(keys["model.num_layers"]):
        theirs, ours = f"encoder.layer.{number}", f"model.blocks.{number}"
        for name in ("query", "key", "value"):
            yield from both(f"{theirs}.attention.self.{name}", f"{ours}.attention.layer.{name}")
        yield from both(f"{theirs}.attention.output.dense", f"{ours}.attention.layer.out")
        yield from both(f"{theirs}.attention.output.LayerNorm", f"{ours}.attention.norm")
        yield from both(f"{theirs}.intermediate.dense", f"{ours}.feed_forward.layer.up")
        yield from both(f"{theirs}.output.dense", f"{ours}.feed_forward.layer.down")
        yield from both(f"{theirs}.output.LayerNorm", f"{ours}.feed_forward.norm")


def masked(keys: Keys) -> Iterator[Pair]:
    yield from both("cls.predictions.transform.dense", "transform.dense")
    yield from both("cls.predictions.transform.LayerNorm", "transform.norm")
    yield Pair("cls.predictions.bias", "head.bias")


def pretraining(keys: Keys) -> Iterator[Pair]:
    yield from masked(keys)
    yield from both("bert.pooler.dense", "nsp_head.pooler")
    yield from both("cls.seq_relationship", "nsp_head.out")


def classifier(keys: Keys) -> Iterator[Pair]:
    yield from both("bert.pooler.dense", "head.pooler")
    yield from both("classifier", "head.out")


# The head that guesses words has the activation of the blocks there, and is always GELU here.
GELU = Choice("hidden_act", {"gelu": layer("GELU", approximate="none")}, "gelu")


class Types(Key):
    """Kinds of token; there is at least one."""

    def outward(self, ours: Ours) -> dict[str, Any]:
        if not ours.get(self.ours):
            ours.want(self.ours, self.default)
        return super().outward(ours)


SEQUENCES = (
    Fixed({"task.pooling": "pooler", "task.transform": False, "task.head_bias": True}),
    KIND_OF_LABELS,
)
WORDS = (Fixed({"task.sentence_task": "none"}), GELU)
PAIRS = (Fixed({"task.sentence_task": "next"}), GELU)


def like(model_type: str, places: Option, table: Table, heads: tuple[Head, ...]) -> Family:
    """An encoder of this family, by what its table of positions and its heads are called."""
    return Family(
        model_type=model_type,
        prefix=f"{model_type.rpartition('-')[2]}.",
        options=(
            Fixed(
                {
                    "model._target_": ENCODER,
                    "residual._target_": POST_NORM,
                    "position._target_": LEARNED,
                    "norm._target_": LAYER_NORM,
                    "norm.bias": True,
                    "model.bias": True,
                    "feed_forward.bias": True,
                }
            ),
            plain(embedding_norm=True),
            OWN_KEYS,
            *SIZES,
            Types("type_vocab_size", "model.token_types", 2),
            places,
            Key("layer_norm_eps", "norm.eps", 1e-12),
            Choice(
                "hidden_act",
                {
                    "gelu": layer("GELU", approximate="none"),
                    "gelu_new": layer("GELU", approximate="tanh"),
                    "gelu_pytorch_tanh": layer("GELU", approximate="tanh"),
                    "relu": layer("ReLU"),
                },
                "gelu",
            ),
            Usual(
                {
                    "position_embedding_type": "absolute",
                    "is_decoder": False,
                    "add_cross_attention": False,
                    "tie_word_embeddings": True,
                }
            ),
        ),
        table=table,
        heads=heads,
        passed=PASSED | {"hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"},
        empty=r"embeddings\.position_ids",
    )


BERT = like(
    "bert",
    Key("max_position_embeddings", "position.max_length"),
    body,
    (
        Head("BertForPreTraining", MLM_NSP, "mlm_nsp", PAIRS, pretraining),
        Head("BertForMaskedLM", MLM_NSP, "mlm_nsp", WORDS, masked),
        Head("BertForSequenceClassification", CLASSIFICATION, "classification", SEQUENCES, classifier),
        Head("BertModel"),
    ),
)
