"""ModernBERT (Warner et al., 2024, arXiv:2412.13663), as transformers has it: query, key and value are one matrix."""

from collections.abc import Iterator

from transformer_lab.interop.families import (
    CLASSIFICATION,
    ENCODER,
    KIND_OF_LABELS,
    LAYER_NORM,
    MLM_NSP,
    OWN_KEYS,
    PASSED,
    PRE_NORM,
    SIZES,
    Family,
    Head,
    Keys,
    layer,
    plain,
)
from transformer_lab.interop.options import Choice, Fixed, Key, Usual
from transformer_lab.interop.rotary import GlobalAndLocalBase
from transformer_lab.interop.weights import Pair, Part, both, halves
from transformer_lab.interop.windows import GlobalLayers


def body(keys: Keys) -> Iterator[Pair]:
    dim, hidden = keys["model.dim"], keys["feed_forward.hidden_dim"]
    turned = halves(dim // keys["model.num_heads"])
    yield Pair("embeddings.tok_embeddings.weight", "model.embedding.weight")
    yield Pair("embeddings.norm.weight", "model.embedding_norm.weight")
    yield Pair("final_norm.weight", "model.norm.weight")
    for number in range(keys["model.num_layers"]):
        theirs, ours = f"layers.{number}", f"model.blocks.{number}"
        attention, feed_forward = f"{ours}.attention.layer", f"{ours}.feed_forward.layer"
        if number:  # what the first reads has just been normalised
            yield Pair(f"{theirs}.attn_norm.weight", f"{ours}.attention.norm.weight")
        yield Pair(f"{theirs}.mlp_norm.weight", f"{ours}.feed_forward.norm.weight")
        parts = (
            Part(f"{attention}.query.weight", dim, turned),
            Part(f"{attention}.key.weight", dim, turned),
            Part(f"{attention}.value.weight", dim),
        )
        yield Pair(f"{theirs}.attn.Wqkv.weight", parts)
        yield Pair(f"{theirs}.attn.Wo.weight", f"{attention}.out.weight")
        gated = (Part(f"{feed_forward}.gate.weight", hidden), Part(f"{feed_forward}.up.weight", hidden))
        yield Pair(f"{theirs}.mlp.Wi.weight", gated)
        yield Pair(f"{theirs}.mlp.Wo.weight", f"{feed_forward}.down.weight")


def masked(keys: Keys) -> Iterator[Pair]:
    yield from both("head.dense", "transform.dense", bias=False)
    yield from both("head.norm", "transform.norm", bias=False)
    yield Pair("decoder.bias", "head.bias")


def classifier(keys: Keys) -> Iterator[Pair]:
    yield from both("head.dense", "head.transform.dense", bias=False)
    yield from both("head.norm", "head.transform.norm", bias=False)
    yield from both("classifier", "head.out")


SEQUENCES = (
    Fixed({"task.transform": True, "task.head_bias": True}),
    Choice("classifier_pooling", {"cls": {"task.pooling": "first"}, "mean": {"task.pooling": "mean"}}, "cls"),
    KIND_OF_LABELS,
)

MODERNBERT = Family(
    model_type="modernbert",
    prefix="model.",
    options=(
        Fixed(
            {
                "model._target_": ENCODER,
                "residual._target_": PRE_NORM,
                "norm._target_": LAYER_NORM,
                "norm.bias": False,
                "model.bias": False,
                "feed_forward.bias": False,
                "model.token_types": 0,
            }
        ),
        plain(embedding_norm=True, window=..., global_every=..., global_first=...),
        OWN_KEYS,
        *SIZES,
        Key("max_position_embeddings", "position.max_length", 8192),
        Key("norm_eps", "norm.eps", 1e-5),
        Choice("hidden_activation", {"gelu": layer("GeGLU", approximate="none")}, "gelu"),
        GlobalLayers("local_attention", "global_attn_every_n_layers", 3, last=False, sides=2, usual=128),
        GlobalAndLocalBase(("global_rope_theta", "local_rope_theta"), (160_000.0, 10_000.0), scaled=False),
        Usual({"attention_bias": False, "mlp_bias": False, "norm_bias": False, "tie_word_embeddings": True}),
        Usual({"classifier_bias": False, "classifier_activation": "gelu", "decoder_bias": True}),
    ),
    table=body,
    heads=(
        Head("ModernBertForMaskedLM", MLM_NSP, "mlm_nsp", (Fixed({"task.sentence_task": "none"}),), masked),
        Head("ModernBertForSequenceClassification", CLASSIFICATION, "classification", SEQUENCES, classifier),
        Head("ModernBertModel"),
    ),
    passed=PASSED
    | {
        *("classifier_dropout", "classifier_pooling", "embedding_dropout", "mlp_dropout", "attention_dropout"),
        *("initializer_cutoff_factor", "deterministic_flash_attn", "sparse_prediction", "sparse_pred_ignore_index"),
        *("reference_compile", "repad_logits_with_grad", "position_embedding_type", "layer_norm_eps"),
    },
)
