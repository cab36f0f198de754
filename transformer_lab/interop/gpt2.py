"""GPT-2 (Radford et al., 2019), as transformers has it: matrices are stored (in, out), and q, k and v are one."""

from collections.abc import Iterator
from typing import Any

from transformer_lab.interop.families import (
    DECODER,
    LANGUAGE_MODELING,
    LAYER_NORM,
    LEARNED,
    OWN_KEYS,
    PASSED,
    PRE_NORM,
    Family,
    Head,
    Keys,
    by_last_token,
    layer,
    output,
    plain,
    tied,
)
from transformer_lab.interop.options import Choice, Fixed, Key, Theirs, Usual
from transformer_lab.interop.weights import SAME, TRANSPOSED, Pair, Part, both


def body(keys: Keys) -> Iterator[Pair]:
    yield Pair("wte.weight", "model.embedding.weight")
    yield Pair("wpe.weight", "model.position.table.weight")
    yield from both("ln_f", "model.norm")
    for number in range(keys["model.num_layers"]):
        theirs, ours = f"h.{number}", f"model.blocks.{number}"
        yield from both(f"{theirs}.ln_1", f"{ours}.attention.norm")
        yield from both(f"{theirs}.ln_2", f"{ours}.feed_forward.norm")
        for kind, form in (("weight", TRANSPOSED), ("bias", SAME)):
            parts = (
                Part(f"{ours}.attention.layer.{part}.{kind}", keys["model.dim"]) for part in ("query", "key", "value")
            )
            yield Pair(f"{theirs}.attn.c_attn.{kind}", tuple(parts), form)
        yield from both(f"{theirs}.attn.c_proj", f"{ours}.attention.layer.out", TRANSPOSED)
        yield from both(f"{theirs}.mlp.c_fc", f"{ours}.feed_forward.layer.up", TRANSPOSED)
        yield from both(f"{theirs}.mlp.c_proj", f"{ours}.feed_forward.layer.down", TRANSPOSED)


class Width(Key):
    """Of the feed-forward layer; 4 D where a config.json has none."""

    def inward(self, theirs: Theirs) -> dict[str, Any]:
        return {self.ours: theirs.get(self.theirs, 4 * theirs.whole("n_embd"))}


GPT2 = Family(
    model_type="gpt2",
    prefix="transformer.",
    options=(
        Fixed(
            {
                "model._target_": DECODER,
                "residual._target_": PRE_NORM,
                "position._target_": LEARNED,
                "norm._target_": LAYER_NORM,
                "norm.bias": True,
                "model.bias": True,
                "feed_forward.bias": True,
                "model.scale_embedding": False,
            }
        ),
        plain(),
        OWN_KEYS,
        Key("n_embd", "model.dim"),
        Key("n_layer", "model.num_layers"),
        Key("n_head", "model.num_heads"),
        Width("n_inner", "feed_forward.hidden_dim"),
        Key("n_positions", "position.max_length", 1024),
        Key("layer_norm_epsilon", "norm.eps", 1e-5),
        Choice(
            "activation_function",
            {
                "gelu_new": layer("GELU", approximate="tanh"),
                "gelu_pytorch_tanh": layer("GELU", approximate="tanh"),
                "gelu": layer("GELU", approximate="none"),
                "relu": layer("ReLU"),
            },
            "gelu_new",
        ),
        Usual(
            {
                "scale_attn_weights": True,
                "scale_attn_by_inverse_layer_idx": False,
                "reorder_and_upcast_attn": False,
                "add_cross_attention": False,
                "is_decoder": False,
            }
        ),
    ),
    table=body,
    heads=(
        Head("GPT2LMHeadModel", LANGUAGE_MODELING, "language_modeling", (tied(True),), output),
        by_last_token("GPT2ForSequenceClassification"),
        Head("GPT2Model"),
    ),
    passed=PASSED
    | {"n_ctx", "resid_pdrop", "embd_pdrop", "attn_pdrop"}
    | {f"summary_{name}" for name in ("type", "use_proj", "activation", "proj_to_labels", "first_dropout")},
    empty=r"h\.\d+\.attn\.(masked_)?bias",
)
