"""T5 (Raffel et al., 2020, arXiv:1910.10683), its version 1.1 and Flan-T5, as transformers has them.

There, scores are not divided by the root of K, and the first version scales what the output matrix reads where ours
scales what is embedded: the same function of other weights.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from transformer_lab.interop.families import (
    OWN_KEYS,
    PASSED,
    PRE_NORM,
    RELATIVE,
    RMS,
    SEQ2SEQ,
    TRANSLATION,
    DecoderLayers,
    Family,
    Head,
    HeadDim,
    Keys,
    decoder_layers,
    head_dim,
    layer,
    plain,
)
from transformer_lab.interop.options import Choice, Fixed, Key, Option, Ours, Theirs
from transformer_lab.interop.weights import SAME, Pair, times


def body(keys: Keys) -> Iterator[Pair]:
    dim, scores = keys["model.dim"], times(head_dim(keys) ** 0.5)
    scaled = times(dim**-0.5) if keys["model.scale_embedding"] else SAME
    yield Pair("shared.weight", "model.embedding.weight", scaled)
    gated = keys["feed_forward._target_"].endswith("GLU")
    matrices = {"gate": "wi_0", "up": "wi_1", "down": "wo"} if gated else {"up": "wi", "down": "wo"}
    for side, layers in (("encoder", keys["model.num_layers"]), ("decoder", decoder_layers(keys))):
        table = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        yield Pair(table, f"model.{side}.position.table.weight")
        yield Pair(f"{side}.final_layer_norm.weight", f"model.{side}.norm.weight")
        for number in range(layers):
            theirs, ours = f"{side}.block.{number}.layer", f"model.{side}.blocks.{number}"
            parts = [("attention", "SelfAttention")]
            parts += [("cross_attention", "EncDecAttention")] if side == "decoder" else []
            for place, (own, other) in enumerate(parts):
                yield Pair(f"{theirs}.{place}.layer_norm.weight", f"{ours}.{own}.norm.weight")
                yield Pair(f"{theirs}.{place}.{other}.q.weight", f"{ours}.{own}.layer.query.weight", scores)
                for name in ("key", "value", "out"):
                    yield Pair(f"{theirs}.{place}.{other}.{name[0]}.weight", f"{ours}.{own}.layer.{name}.weight")
            last = f"{theirs}.{len(parts)}"
            yield Pair(f"{last}.layer_norm.weight", f"{ours}.feed_forward.norm.weight")
            for own, other in matrices.items():
                yield Pair(f"{last}.DenseReluDense.{other}.weight", f"{ours}.feed_forward.layer.{own}.weight")


def output(keys: Keys) -> Iterator[Pair]:
    if not keys["task.tie_embeddings"]:
        yield Pair("lm_head.weight", "head.weight", otherwise="shared.weight")


@dataclass(frozen=True)
class Scaled(Option):
    """The first version has one table, whose output is scaled; the others have an output matrix of their own."""

    def inward(self, theirs: Theirs) -> dict[str, Any]:
        scaled = theirs.get("scale_decoder_outputs", theirs.get("tie_word_embeddings", True))
        return {"model.scale_embedding": scaled, "task.tie_embeddings": scaled}

    def outward(self, ours: Ours) -> dict[str, Any]:
        scaled = ours.get("model.scale_embedding")
        ours.want("task.tie_embeddings", scaled)
        return {"scale_decoder_outputs": scaled, "tie_word_embeddings": scaled}


T5 = Family(
    model_type="t5",
    prefix="",
    options=(
        Fixed(
            {
                "model._target_": SEQ2SEQ,
                "residual._target_": PRE_NORM,
                "norm._target_": RMS,
                "position._target_": RELATIVE,
                "model.bias": False,
                "feed_forward.bias": False,
                "model.share_embeddings": True,
                "model.cross_position": False,
                "task.output_bias": False,
            }
        ),
        plain(head_dim=...),
        OWN_KEYS,
        Key("d_model", "model.dim"),
        Key("num_layers", "model.num_layers"),
        Key("num_heads", "model.num_heads"),
        DecoderLayers("num_decoder_layers", "model.num_decoder_layers", None),
        HeadDim("d_kv", 64, dim="d_model", heads="num_heads"),
        Key("d_ff", "feed_forward.hidden_dim"),
        Key("relative_attention_num_buckets", "position.num_buckets", 32),
        Key("relative_attention_max_distance", "position.max_distance", 128),
        Key("layer_norm_epsilon", "norm.eps", 1e-6),
        Choice(
            "feed_forward_proj",
            {
                "relu": layer("ReLU"),
                "relu2": layer("SquaredReLU"),
                "gated-gelu": layer("GeGLU", approximate="tanh"),
                "gated-gelu_python": layer("GeGLU", approximate="none"),
                "gated-silu": layer("SwiGLU"),
            },
            "relu",
        ),
        Scaled(),
    ),
    table=body,
    heads=(
        Head("T5ForConditionalGeneration", TRANSLATION, "translation", (), output),
        Head("T5Model"),
    ),
    passed=PASSED
    | {"dropout_rate", "classifier_dropout", "dense_act_fn", "is_gated_act", "is_encoder_decoder", "n_positions"}
    | {"initializer_factor", "tie_encoder_decoder"},
    empty=r"(en|de)coder\.embed_tokens\.weight",
    also={"is_encoder_decoder": True},
)
