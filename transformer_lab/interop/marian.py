"""Marian (Junczys-Dowmunt et al., 2018, arXiv:1804.00344), the OPUS-MT models, as transformers has them.

Sines stand there before all cosines, and here next to theirs: the channels of the residual stream change places.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from transformer_lab.interop.families import (
    LAYER_NORM,
    OWN_KEYS,
    PASSED,
    POST_NORM,
    SEQ2SEQ,
    SINUSOIDAL,
    TRANSLATION,
    DecoderLayers,
    Family,
    Head,
    Keys,
    decoder_layers,
    layer,
    plain,
)
from transformer_lab.interop.options import Choice, Fixed, Key, Option, Ours, Theirs, Usual
from transformer_lab.interop.weights import Form, Pair, both, halves

if TYPE_CHECKING:
    from torch import Tensor

ATTENTION = {"q_proj": "query", "k_proj": "key", "v_proj": "value"}


def body(keys: Keys) -> Iterator[Pair]:
    written, read = halves(keys["model.dim"]), halves(keys["model.dim"], axis=1)
    yield Pair("shared.weight", "model.embedding.weight", read)
    for side, layers in (
        ("encoder", keys["model.num_layers"]),
        ("decoder", decoder_layers(keys)),
    ):
        parts = {"self_attn": "attention"} | ({"encoder_attn": "cross_attention"} if side == "decoder" else {})
        for number in range(layers):
            theirs, ours = f"{side}.layers.{number}", f"model.{side}.blocks.{number}"
            for other, own in parts.items():
                for name, mine in ATTENTION.items():
                    yield Pair(f"{theirs}.{other}.{name}.weight", f"{ours}.{own}.layer.{mine}.weight", read)
                    yield Pair(f"{theirs}.{other}.{name}.bias", f"{ours}.{own}.layer.{mine}.bias")
                yield from both(f"{theirs}.{other}.out_proj", f"{ours}.{own}.layer.out", written)
                yield from both(f"{theirs}.{other}_layer_norm", f"{ours}.{own}.norm", written)
            yield Pair(f"{theirs}.fc1.weight", f"{ours}.feed_forward.layer.up.weight", read)
            yield Pair(f"{theirs}.fc1.bias", f"{ours}.feed_forward.layer.up.bias")
            yield from both(f"{theirs}.fc2", f"{ours}.feed_forward.layer.down", written)
            yield from both(f"{theirs}.final_layer_norm", f"{ours}.feed_forward.norm", written)


class OutputBias(Pair):
    """A row there; nothing but zeros for a model that has none."""

    def outward(self, ours: "Mapping[str, Tensor]") -> "Tensor":
        if self.ours not in ours:
            return ours["model.embedding.weight"].new_zeros(1, len(ours["model.embedding.weight"]))
        return super().outward(ours)


def output(keys: Keys) -> Iterator[Pair]:
    yield OutputBias("final_logits_bias", "head.bias", Form(lambda x: x[0], lambda x: x[None]))


@dataclass(frozen=True)
class BothSides(Option):
    """Sizes that encoder and decoder have alike here, and a name each for there."""

    theirs: str
    ours: str

    def inward(self, theirs: Theirs) -> dict[str, Any]:
        one, other = (theirs.whole(f"{side}_{self.theirs}") for side in ("encoder", "decoder"))
        if one != other:
            raise theirs.refused(f"decoder_{self.theirs}", other, [one])
        return {self.ours: one}

    def outward(self, ours: Ours) -> dict[str, Any]:
        return {f"{side}_{self.theirs}": ours.get(self.ours) for side in ("encoder", "decoder")}


@dataclass(frozen=True)
class Biased(Option):
    """Each token has a bias in the output there; a model without one has zeros for it."""

    def inward(self, theirs: Theirs) -> dict[str, Any]:
        return {"task.output_bias": True}

    def outward(self, ours: Ours) -> dict[str, Any]:
        ours.want("task.output_bias", True, False)
        return {}


MARIAN = Family(
    model_type="marian",
    prefix="model.",
    options=(
        Fixed(
            {
                "model._target_": SEQ2SEQ,
                "residual._target_": POST_NORM,
                "norm._target_": LAYER_NORM,
                "norm.bias": True,
                "norm.eps": 1e-5,
                "position._target_": SINUSOIDAL,
                "position.scale": 1.0,
                "model.bias": True,
                "feed_forward.bias": True,
                "model.share_embeddings": True,
                "model.cross_position": False,
                "task.tie_embeddings": True,
            }
        ),
        plain(),
        OWN_KEYS,
        Key("d_model", "model.dim"),
        Key("encoder_layers", "model.num_layers"),
        DecoderLayers("decoder_layers", "model.num_decoder_layers"),
        BothSides("attention_heads", "model.num_heads"),
        BothSides("ffn_dim", "feed_forward.hidden_dim"),
        Key("max_position_embeddings", "position.max_length", 1024),
        Key("scale_embedding", "model.scale_embedding", False),
        Choice(
            "activation_function",
            {
                "swish": layer("SiLU"),
                "silu": layer("SiLU"),
                "relu": layer("ReLU"),
                "relu2": layer("SquaredReLU"),
                "gelu": layer("GELU", approximate="none"),
                "gelu_new": layer("GELU", approximate="tanh"),
            },
            "gelu",
        ),
        Biased(),
        Usual(
            {"share_encoder_decoder_embeddings": True, "tie_word_embeddings": True, "static_position_embeddings": True}
        ),
        Usual({"normalize_before": False, "normalize_embedding": False, "add_final_layer_norm": False}),
    ),
    table=body,
    heads=(
        Head("MarianMTModel", TRANSLATION, "translation", (), output),
        Head("MarianModel"),
    ),
    passed=PASSED
    | {"dropout", "attention_dropout", "activation_dropout", "encoder_layerdrop", "decoder_layerdrop", "init_std"}
    | {"classifier_dropout", "classif_dropout", "bad_words_ids", "forced_eos_token_id", "decoder_vocab_size"}
    | {"num_hidden_layers", "is_encoder_decoder", "add_bias_logits", "extra_pos_embeddings"},
    empty=r"(en|de)coder\.embed_(tokens|positions)\.weight",
    also={"is_encoder_decoder": True, "forced_eos_token_id": None},
)
