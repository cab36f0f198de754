"""Gemma 3 (Gemma Team, 2025, arXiv:2503.19786), its text models, as transformers has them.

Norms there keep how much their scale differs from one.
"""

from collections.abc import Iterator
from typing import Any

from transformer_lab.interop.families import (
    DECODER,
    LANGUAGE_MODELING,
    PASSED,
    RMS,
    SANDWICH_NORM,
    SIZES,
    Family,
    Head,
    HeadDim,
    Keys,
    KeyValueHeads,
    by_last_token,
    head_dim,
    layer,
    output,
    plain,
    tied,
)
from transformer_lab.interop.options import Choice, Fixed, Key, Theirs, Usual
from transformer_lab.interop.rotary import GlobalAndLocalBase
from transformer_lab.interop.weights import Form, Pair, both, chained, halves
from transformer_lab.interop.windows import GlobalLayers

NORM = Form(lambda x: x + 1, lambda x: x - 1)
NORMS = {
    "input_layernorm": "attention.norm",
    "post_attention_layernorm": "attention.outer_norm",
    "pre_feedforward_layernorm": "feed_forward.norm",
    "post_feedforward_layernorm": "feed_forward.outer_norm",
}


def body(keys: Keys) -> Iterator[Pair]:
    turned, biased = halves(head_dim(keys)), bool(keys["model.bias"])
    yield Pair("embed_tokens.weight", "model.embedding.weight")
    yield Pair("norm.weight", "model.norm.weight", NORM)
    for number in range(keys["model.num_layers"]):
        theirs, ours = f"layers.{number}", f"model.blocks.{number}"
        for name, own in NORMS.items():
            yield Pair(f"{theirs}.{name}.weight", f"{ours}.{own}.weight", NORM)
        attention, mine = f"{theirs}.self_attn", f"{ours}.attention.layer"
        yield from both(f"{attention}.q_proj", f"{mine}.query", turned, bias=biased)
        yield from both(f"{attention}.k_proj", f"{mine}.key", turned, bias=biased)
        yield from both(f"{attention}.v_proj", f"{mine}.value", bias=biased)
        yield from both(f"{attention}.o_proj", f"{mine}.out", bias=biased)
        yield Pair(f"{attention}.q_norm.weight", f"{mine}.query_norm.weight", chained(turned, NORM))
        yield Pair(f"{attention}.k_norm.weight", f"{mine}.key_norm.weight", chained(turned, NORM))
        for name in ("gate", "up", "down"):
            yield Pair(f"{theirs}.mlp.{name}_proj.weight", f"{ours}.feed_forward.layer.{name}.weight")


class ScoreScale(HeadDim):
    """What scores are divided by the root of; here always the width of a head."""

    def inward(self, theirs: Theirs) -> dict[str, Any]:
        width = theirs.whole("head_dim", 256)
        if (scale := theirs.get(self.theirs, 256)) != width:
            raise theirs.refused(self.theirs, scale, [width])
        return {}


GEMMA3 = Family(
    model_type="gemma3_text",
    prefix="model.",
    options=(
        Fixed(
            {
                "model._target_": DECODER,
                "residual._target_": SANDWICH_NORM,
                "norm._target_": RMS,
                "model.scale_embedding": True,
                "feed_forward.bias": False,
            }
        ),
        plain(qk_norm=True, head_dim=..., window=..., global_every=..., global_first=...),
        *SIZES,
        KeyValueHeads("num_key_value_heads", 4),
        HeadDim(default=256),
        ScoreScale("query_pre_attn_scalar"),
        Key("attention_bias", "model.bias", False),
        Key("rms_norm_eps", "norm.eps", 1e-6),
        Key("max_position_embeddings", "position.max_length", 131_072),
        Choice(
            "hidden_activation",
            {
                "gelu_pytorch_tanh": layer("GeGLU", approximate="tanh"),
                "gelu": layer("GeGLU", approximate="none"),
                "silu": layer("SwiGLU"),
            },
            "gelu_pytorch_tanh",
        ),
        GlobalLayers("sliding_window", "sliding_window_pattern", 6, last=True, sides=1, usual=4096),
        GlobalAndLocalBase(("rope_theta", "rope_local_base_freq"), (1_000_000.0, 10_000.0)),
        Usual({"hidden_act": "gelu_pytorch_tanh"}),
    ),
    table=body,
    heads=(
        Head("Gemma3ForCausalLM", LANGUAGE_MODELING, "language_modeling", (tied(True),), output),
        by_last_token("Gemma3TextForSequenceClassification"),
        Head("Gemma3TextModel"),
    ),
    passed=PASSED | {"attention_dropout"},
)
