"""Llama (Touvron et al., 2023, arXiv:2302.13971) and the decoders like it, as transformers has them.

They differ in whether the feed-forward layer is gated, whether queries and keys are normalised, and in windows.
"""

from collections.abc import Callable, Iterator
from typing import Any

from transformer_lab.interop.families import (
    DECODER,
    LANGUAGE_MODELING,
    PASSED,
    PRE_NORM,
    RMS,
    SIZES,
    Family,
    Head,
    HeadDim,
    Keys,
    KeyValueHeads,
    by_last_token,
    head_dim,
    layer,
    out_bias,
    output,
    plain,
    tied,
)
from transformer_lab.interop.options import Choice, Fixed, Key, Option, Usual
from transformer_lab.interop.rotary import RotaryBase
from transformer_lab.interop.weights import Pair, both, halves
from transformer_lab.interop.windows import EveryLayer, LayerWindows

XIELU = layer("XIELU")


def body(
    attention_norm: str, feed_forward_norm: str, feed_forward: tuple[str, ...]
) -> Callable[[Keys], Iterator[Pair]]:
    """The tensors, by what the norms of a block and the matrices of its feed-forward layer are called."""

    def pairs(keys: Keys) -> Iterator[Pair]:
        turned = halves(head_dim(keys))
        biased = bool(keys["model.bias"])
        yield Pair("embed_tokens.weight", "model.embedding.weight")
        yield Pair("norm.weight", "model.norm.weight")
        for number in range(keys["model.num_layers"]):
            theirs, ours = f"layers.{number}", f"model.blocks.{number}"
            attention, mine = f"{theirs}.self_attn", f"{ours}.attention.layer"
            yield Pair(f"{theirs}.{attention_norm}.weight", f"{ours}.attention.norm.weight")
            yield Pair(f"{theirs}.{feed_forward_norm}.weight", f"{ours}.feed_forward.norm.weight")
            yield from both(f"{attention}.q_proj", f"{mine}.query", turned, bias=biased)
            yield from both(f"{attention}.k_proj", f"{mine}.key", turned, bias=biased)
            yield from both(f"{attention}.v_proj", f"{mine}.value", bias=biased)
            yield from both(f"{attention}.o_proj", f"{mine}.out", bias=out_bias(keys))
            if keys["model.qk_norm"]:
                yield Pair(f"{attention}.q_norm.weight", f"{mine}.query_norm.weight", turned)
                yield Pair(f"{attention}.k_norm.weight", f"{mine}.key_norm.weight", turned)
            for name in feed_forward:
                bias = bool(keys["feed_forward.bias"])
                yield from both(f"{theirs}.mlp.{name}_proj", f"{ours}.feed_forward.layer.{name}", bias=bias)
            if keys["feed_forward._target_"] == XIELU["feed_forward._target_"]:
                for name in ("alpha_p", "alpha_n"):
                    yield Pair(f"{theirs}.mlp.act_fn.{name}", f"{ours}.feed_forward.layer.{name}")

    return pairs


BIASES = (Key("attention_bias", "model.bias", False), Key("mlp_bias", "feed_forward.bias", False))
NO_BIAS = Fixed({"feed_forward.bias": False})
SWIGLU = Choice("hidden_act", {"silu": layer("SwiGLU"), "swish": layer("SwiGLU")}, "silu")
SQUARED = Choice("hidden_act", {"relu2": layer("SquaredReLU")}, "relu2")
GATED, UNGATED = ("gate", "up", "down"), ("up", "down")
USUAL_NORMS = ("input_layernorm", "post_attention_layernorm")


def like(
    model_type: str,
    name: str,
    *options: Option,
    matrices: tuple[str, ...] = GATED,
    norms: tuple[str, str] = USUAL_NORMS,
    eps: float = 1e-6,
    positions: int = 2048,
    qk_norm: bool = False,
    base: float = 10_000.0,
    windows: bool = False,
    out: bool | None = None,
) -> Family:
    """A decoder of this family; the numbers are what its class in transformers takes where a config.json is silent."""
    mine: dict[str, Any] = {"window": ..., "global_every": ..., "global_first": ...} if windows else {}
    return Family(
        model_type=model_type,
        prefix="model.",
        options=(
            Fixed(
                {
                    "model._target_": DECODER,
                    "residual._target_": PRE_NORM,
                    "norm._target_": RMS,
                    "model.scale_embedding": False,
                }
            ),
            plain(qk_norm=qk_norm, head_dim=..., out_bias=out, **mine),
            *SIZES,
            KeyValueHeads("num_key_value_heads"),
            Key("rms_norm_eps", "norm.eps", eps),
            Key("max_position_embeddings", "position.max_length", positions),
            RotaryBase(base),
            *options,
        ),
        table=body(*norms, matrices),
        heads=(
            Head(f"{name}ForCausalLM", LANGUAGE_MODELING, "language_modeling", (tied(False),), output),
            *([by_last_token(f"{name}ForSequenceClassification")] if name != "Apertus" else []),
            Head(f"{name}Model"),
        ),
        passed=PASSED | {"attention_dropout", "hidden_dropout"},
        empty=r"(.*\.)?rotary_emb\.inv_freq|.*\.act_fn\.(bias|eps)",  # of xIELU: its slope, a number that never changes
    )


LLAMA = like("llama", "Llama", SWIGLU, *BIASES, HeadDim())
MISTRAL = like(
    "mistral",
    "Mistral",
    SWIGLU,
    NO_BIAS,
    Fixed({"model.bias": False}),
    HeadDim(),
    EveryLayer(4096),
    positions=131_072,
    windows=True,
)
QWEN2 = like(
    "qwen2",
    "Qwen2",
    SWIGLU,
    NO_BIAS,
    Fixed({"model.bias": True}),
    HeadDim(),
    LayerWindows(),
    positions=32_768,
    windows=True,
    out=False,
)
QWEN3 = like(
    "qwen3",
    "Qwen3",
    SWIGLU,
    NO_BIAS,
    Key("attention_bias", "model.bias", False),
    HeadDim(default=128),
    LayerWindows(),
    positions=32_768,
    qk_norm=True,
    windows=True,
)
ARCEE = like("arcee", "Arcee", SQUARED, *BIASES, HeadDim(), matrices=UNGATED, eps=1e-5, positions=4096)
APERTUS = like(
    "apertus",
    "Apertus",
    Choice("hidden_act", {"relu2": layer("SquaredReLU"), "xielu": XIELU}, "xielu"),
    NO_BIAS,
    Key("attention_bias", "model.bias", False),
    HeadDim(),
    Usual({"post_norm": False}),
    matrices=UNGATED,
    norms=("attention_layernorm", "feedforward_layernorm"),
    eps=1e-5,
    positions=65_536,
    qk_norm=True,
)
FAMILIES = (LLAMA, QWEN2, QWEN3, MISTRAL, ARCEE, APERTUS)
