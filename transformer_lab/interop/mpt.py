"""MPT (MosaicML NLP Team, 2023), as transformers has it: ALiBi instead of positions, and no biases at all."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from transformer_lab.interop.families import (
    ALIBI,
    DECODER,
    LANGUAGE_MODELING,
    LAYER_NORM,
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
from transformer_lab.interop.options import Fixed, Key, Option, Ours, Theirs, Usual
from transformer_lab.interop.weights import Pair, Part


def body(keys: Keys) -> Iterator[Pair]:
    yield Pair("wte.weight", "model.embedding.weight")
    yield Pair("norm_f.weight", "model.norm.weight")
    for number in range(keys["model.num_layers"]):
        theirs, ours = f"blocks.{number}", f"model.blocks.{number}"
        yield Pair(f"{theirs}.norm_1.weight", f"{ours}.attention.norm.weight")
        yield Pair(f"{theirs}.norm_2.weight", f"{ours}.feed_forward.norm.weight")
        parts = (Part(f"{ours}.attention.layer.{x}.weight", keys["model.dim"]) for x in ("query", "key", "value"))
        yield Pair(f"{theirs}.attn.Wqkv.weight", tuple(parts))
        yield Pair(f"{theirs}.attn.out_proj.weight", f"{ours}.attention.layer.out.weight")
        yield Pair(f"{theirs}.ffn.up_proj.weight", f"{ours}.feed_forward.layer.up.weight")
        yield Pair(f"{theirs}.ffn.down_proj.weight", f"{ours}.feed_forward.layer.down.weight")


@dataclass(frozen=True)
class FourTimes(Option):
    """The feed-forward layer is four times as wide as the model; transformers does not look at `expansion_ratio`."""

    def inward(self, theirs: Theirs) -> dict[str, Any]:
        return {"feed_forward.hidden_dim": 4 * theirs.whole("d_model")}

    def outward(self, ours: Ours) -> dict[str, Any]:
        ours.want("feed_forward.hidden_dim", 4 * ours.get("model.dim"))
        return {}


@dataclass(frozen=True)
class Attention(Option):
    """What stands in `attn_config`: ALiBi, and nothing else that this attention has no option for."""

    def inward(self, theirs: Theirs) -> dict[str, Any]:
        inner = Theirs(theirs.get("attn_config", {}), f"{theirs.where}: attn_config")
        Usual({"alibi": True, "alibi_bias_max": 8, "attn_type": "multihead_attention"}).inward(inner)
        inner.refuse_rest({*PASSED, "attn_pdrop", "attn_impl"})
        return {"position._target_": ALIBI}

    def outward(self, ours: Ours) -> dict[str, Any]:
        ours.want("position._target_", ALIBI)
        return {"attn_config": {"alibi": True, "model_type": ""}}


@dataclass(frozen=True)
class Longest(Option):
    """ALiBi serves texts of any length; transformers makes a table for it that is so long."""

    def inward(self, theirs: Theirs) -> dict[str, Any]:
        theirs.read.add("max_seq_len")
        return {}

    def outward(self, ours: Ours) -> dict[str, Any]:
        return {"max_seq_len": max(2048, ours.get("task.context") or 0)}


MPT = Family(
    model_type="mpt",
    prefix="transformer.",
    options=(
        Fixed(
            {
                "model._target_": DECODER,
                "residual._target_": PRE_NORM,
                "norm._target_": LAYER_NORM,
                "norm.bias": False,
                "model.bias": False,
                **layer("GELU", approximate="none", bias=False),
                "model.scale_embedding": False,
            }
        ),
        plain(),
        OWN_KEYS,
        Key("d_model", "model.dim"),
        Key("n_layers", "model.num_layers"),
        Key("n_heads", "model.num_heads"),
        Key("layer_norm_epsilon", "norm.eps", 1e-5),
        FourTimes(),
        Attention(),
        Longest(),
        Usual({"no_bias": True, "expansion_ratio": 4}),
    ),
    table=body,
    heads=(
        Head("MptForCausalLM", LANGUAGE_MODELING, "language_modeling", (tied(True),), output),
        by_last_token("MptForSequenceClassification"),
        Head("MptModel"),
    ),
    passed=PASSED
    | {"resid_pdrop", "emb_pdrop", "learned_pos_emb", "init_device", "embedding_fraction", "norm_type"}
    | {"init_config", "verbose"},
)
